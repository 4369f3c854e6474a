with members as (

    select * from {{ ref('stg_segments') }}

),

-- Noise is in no segment, so that nothing about it is in doubt.
placed as (

    select * from members
    where segment_id != -1

),

ranked as (

    select
        *,
        row_number() over (partition by dataset order by confidence, entity_key) as doubt_rank
    from placed

),

doubtful as (

    select
        member_key,
        dataset,
        version,
        entity_key,
        segment_id,
        segment_name,
        confidence,
        doubt_rank,
        confidence < {{ var('doubtful_below') }} as is_below_limit
    from ranked
    where
        confidence < {{ var('doubtful_below') }}
        or doubt_rank <= {{ var('lowest_rows') }}

)

select * from doubtful
order by dataset, doubt_rank
