{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_values') }}

),

keyed as (

    select
        dataset || '.' || segment_id as segment_key,
        dataset,
        version,
        segment_id,
        segment_name,
        column_name,
        value,
        value_order,
        rows
    from source

)

select * from keyed
