{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_transitions') }}

),

-- Segments are numbered from 0, and -1 is noise: where there was no segment, the key has a word.
keyed as (

    select
        publish_id
        || '.' || coalesce(cast(from_segment_id as varchar), 'new')
        || '.' || coalesce(cast(to_segment_id as varchar), 'gone') as transition_key,
        publish_id,
        dataset,
        from_version,
        version,
        from_segment_id,
        to_segment_id,
        case
            when from_segment_id is null then 'new'
            when to_segment_id is null then 'gone'
            when from_segment_id = to_segment_id then 'stayed'
            else 'moved'
        end as movement,
        rows
    from source

)

select * from keyed
