with segment_values as (

    select * from {{ ref('stg_segment_values') }}

),

counted as (

    select
        *,
        sum(rows) over (partition by segment_key, column_name) as segment_rows,
        sum(rows) over (partition by dataset, column_name, value) as value_rows,
        sum(rows) over (partition by dataset, column_name) as all_rows
    from segment_values

),

shares as (

    select
        *,
        cast(rows / nullif(segment_rows, 0) as double) as share_of_segment,
        cast(value_rows / nullif(all_rows, 0) as double) as share_of_all
    from counted

),

lifted as (

    select
        segment_key,
        dataset,
        version,
        segment_id,
        segment_name,
        column_name,
        value,
        value_order,
        rows,
        share_of_segment,
        share_of_all,
        share_of_segment / nullif(share_of_all, 0) as lift
    from shares

)

select * from lifted
order by dataset, segment_id, column_name, value_order, value
