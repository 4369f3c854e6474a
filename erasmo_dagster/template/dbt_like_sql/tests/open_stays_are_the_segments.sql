-- The stays that last are the segments as they are: the same entities, each in the same segment.
with stays as (

    select * from {{ ref('stg_segment_history') }}
    where is_open

),

members as (

    select * from {{ ref('stg_segments') }}

),

compared as (

    select
        coalesce(stays.dataset, members.dataset) as dataset,
        coalesce(stays.entity_key, members.entity_key) as entity_key,
        stays.segment_id as history_segment_id,
        members.segment_id
    from stays
    full outer join members on stays.member_key = members.member_key

)

select * from compared
where history_segment_id is distinct from segment_id
