with stays as (

    select * from {{ ref('stg_segment_history') }}

),

members as (

    select * from {{ ref('stg_segments') }}

),

last_publishes as (

    select * from {{ ref('stg_publish_log') }}
    where is_last

),

-- An entity that went and came back is not new.
first_stays as (

    select
        member_key,
        min(valid_from) as first_seen_at
    from stays
    group by member_key

),

newest as (

    select
        members.member_key,
        members.dataset,
        members.version,
        members.entity_key,
        members.segment_id,
        members.segment_name,
        members.confidence,
        first_stays.first_seen_at
    from members
    inner join first_stays on members.member_key = first_stays.member_key
    inner join last_publishes on members.dataset = last_publishes.dataset
    where first_stays.first_seen_at = last_publishes.published_at

),

limited as (

    select * from newest
    qualify row_number() over (partition by dataset order by entity_key) <= {{ var('newest_rows') }}

)

select * from limited
order by dataset, entity_key
