-- A segment has one row for each value of a column.
with shares as (

    select * from {{ ref('segments_by_column') }}

),

counted as (

    select
        dataset,
        segment_id,
        column_name,
        value,
        count(*) as times
    from shares
    group by dataset, segment_id, column_name, value

)

select * from counted
where times != 1
