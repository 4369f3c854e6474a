{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segments') }}

),

keyed as (

    select
        dataset || '.' || entity_key as member_key,
        dataset || '.' || segment_id as segment_key,
        dataset,
        version,
        entity_key,
        segment_id,
        segment_name,
        confidence,
        assigned_at
    from source

)

select * from keyed
