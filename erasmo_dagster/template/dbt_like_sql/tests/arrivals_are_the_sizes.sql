-- By the last publish's transitions, those that stayed among them, as many rows are in each segment as it has.
-- A dataset that was published before transitions were kept has none, and is left out.
with overview as (

    select * from {{ ref('segment_overview') }}

),

transitions as (

    select * from {{ ref('stg_segment_transitions') }}

),

last_publishes as (

    select * from {{ ref('stg_publish_log') }}
    where is_last

),

last_transitions as (

    select transitions.*
    from transitions
    inner join last_publishes on transitions.publish_id = last_publishes.publish_id

),

arrivals as (

    select
        dataset,
        to_segment_id as segment_id,
        sum(rows) as rows
    from last_transitions
    where to_segment_id is not null
    group by dataset, to_segment_id

),

sizes as (

    select
        dataset,
        segment_id,
        rows
    from overview
    where dataset in (select last_transitions.dataset from last_transitions)

),

compared as (

    select
        coalesce(sizes.dataset, arrivals.dataset) as dataset,
        coalesce(sizes.segment_id, arrivals.segment_id) as segment_id,
        coalesce(sizes.rows, 0) as rows,
        coalesce(arrivals.rows, 0) as arrived
    from sizes
    full outer join arrivals on sizes.dataset = arrivals.dataset and sizes.segment_id = arrivals.segment_id

)

select * from compared
where rows != arrived
