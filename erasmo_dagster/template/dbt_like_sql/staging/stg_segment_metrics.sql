{{ config(materialized='view') }}

with source as (

    select * from {{ source('erasmo', 'segment_metrics') }}

),

keyed as (

    select
        dataset || '.' || metric as metric_key,
        dataset,
        version,
        metric,
        value,
        description
    from source

)

select * from keyed
