{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_history') }}

),

keyed as (

    select
        dataset || '.' || entity_key || '@' || valid_from as stay_key,
        dataset || '.' || entity_key as member_key,
        dataset,
        entity_key,
        segment_id,
        segment_name,
        from_version,
        valid_from,
        to_version,
        valid_to,
        valid_to is null as is_open
    from source

)

select * from keyed
