-- Every row of a segment has one value in each column, where missing counts as one.
with segment_values as (

    select * from {{ ref('segments_by_column') }}

),

overview as (

    select * from {{ ref('segment_overview') }}

),

sums as (

    select
        dataset,
        segment_id,
        column_name,
        sum(rows) as value_rows
    from segment_values
    group by dataset, segment_id, column_name

),

compared as (

    select
        sums.dataset,
        sums.segment_id,
        sums.column_name,
        sums.value_rows,
        overview.rows
    from sums
    left join overview on sums.dataset = overview.dataset and sums.segment_id = overview.segment_id

)

select * from compared
where value_rows is distinct from rows
