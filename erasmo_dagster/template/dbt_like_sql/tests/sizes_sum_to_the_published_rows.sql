-- The sizes of a dataset's segments sum to the rows of its last publish; a hidden dataset has none of either.
with overview as (

    select * from {{ ref('segment_overview') }}

),

last_publishes as (

    select * from {{ ref('stg_publish_log') }}
    where is_last

),

sizes as (

    select
        dataset,
        sum(rows) as rows
    from overview
    group by dataset

),

compared as (

    select
        coalesce(sizes.dataset, last_publishes.dataset) as dataset,
        coalesce(sizes.rows, 0) as segment_rows,
        coalesce(last_publishes.rows, 0) as published_rows
    from sizes
    full outer join last_publishes on sizes.dataset = last_publishes.dataset

)

select * from compared
where segment_rows != published_rows
