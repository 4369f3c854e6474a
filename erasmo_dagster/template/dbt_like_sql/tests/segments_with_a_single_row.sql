-- A segment of one row is seldom one that anybody needs: look at it, or ask for fewer segments.
{{ config(severity='warn') }}

with overview as (

    select * from {{ ref('segment_overview') }}

),

single_rows as (

    select
        dataset,
        segment_id,
        segment_name
    from overview
    where rows = 1

)

select * from single_rows
