{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_profile') }}

),

keyed as (

    select
        dataset || '.' || segment_id || '.' || trait_rank as trait_key,
        dataset || '.' || segment_id as segment_key,
        dataset,
        version,
        segment_id,
        segment_name,
        trait_rank,
        column_name,
        kind,
        value,
        in_segment,
        in_rest,
        effect,
        effect_kind,
        strength,
        column_association,
        description
    from source

)

select * from keyed
