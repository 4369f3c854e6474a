{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_descriptions') }}

),

keyed as (

    select
        dataset || '.' || segment_id as segment_key,
        dataset,
        version,
        segment_id,
        segment_name,
        rows,
        share,
        summary,
        rule,
        rule_precision,
        rule_coverage,
        typical_row,
        central_members,
        doubtful_members
    from source

)

select * from keyed
