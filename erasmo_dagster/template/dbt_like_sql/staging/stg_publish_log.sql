{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'publish_log') }}

),

ranked as (

    select
        publish_id,
        dataset,
        version,
        run_id,
        fingerprint,
        rows,
        segments,
        published_at,
        reason,
        figures,
        row_number() over (partition by dataset order by publish_id desc) = 1 as is_last
    from source

)

select * from ranked
