-- An entity is in one segment.
with members as (

    select * from {{ ref('stg_segments') }}

),

counted as (

    select
        dataset,
        entity_key,
        count(*) as segments
    from members
    group by dataset, entity_key

)

select * from counted
where segments != 1
