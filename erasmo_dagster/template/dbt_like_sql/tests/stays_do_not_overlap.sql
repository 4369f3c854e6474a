-- An entity is never in two segments at once.
with stays as (

    select * from {{ ref('stg_segment_history') }}

),

followed as (

    select
        dataset,
        entity_key,
        segment_id,
        valid_from,
        valid_to,
        lead(valid_from) over (partition by member_key order by valid_from) as next_valid_from
    from stays

)

select * from followed
where
    valid_to < valid_from
    or next_valid_from < valid_to
    or (next_valid_from is not null and valid_to is null)
