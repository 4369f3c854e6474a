{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_sizes') }}

),

keyed as (

    select
        dataset || '.' || segment_id as segment_key,
        dataset,
        version,
        segment_id,
        segment_name,
        rows,
        share
    from source

)

select * from keyed
