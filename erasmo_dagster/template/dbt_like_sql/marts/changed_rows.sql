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

ended as (

    select stays.*
    from stays
    inner join last_publishes on stays.dataset = last_publishes.dataset
    where stays.valid_to = last_publishes.published_at

),

begun as (

    select stays.*
    from stays
    inner join last_publishes on stays.dataset = last_publishes.dataset
    where stays.valid_from = last_publishes.published_at

),

changed as (

    select
        begun.member_key,
        begun.dataset,
        begun.from_version as version,
        begun.entity_key,
        ended.segment_id as from_segment_id,
        ended.segment_name as from_segment_name,
        begun.segment_id as to_segment_id,
        begun.segment_name as to_segment_name,
        members.confidence,
        ended.valid_from as was_there_since,
        begun.valid_from as changed_at
    from begun
    inner join ended on begun.member_key = ended.member_key
    left join members on begun.member_key = members.member_key

)

select * from changed
order by dataset, entity_key
