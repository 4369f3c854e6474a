with transitions as (

    select * from {{ ref('stg_segment_transitions') }}

),

publishes as (

    select * from {{ ref('stg_publish_log') }}

),

stays as (

    select * from {{ ref('stg_segment_history') }}

),

-- Segments that nobody is in any more have their names in the history alone.
segment_names as (

    select
        dataset,
        segment_id,
        max(segment_name) as segment_name
    from stays
    group by dataset, segment_id

),

shares as (

    select
        *,
        case
            when from_segment_id is not null
                then rows / sum(rows) over (partition by publish_id, from_segment_id)
        end as share_of_origin
    from transitions

),

movements as (

    select
        shares.transition_key as movement_key,
        shares.publish_id,
        shares.dataset,
        shares.from_version,
        shares.version,
        publishes.published_at,
        shares.movement,
        shares.from_segment_id,
        origins.segment_name as from_segment_name,
        shares.to_segment_id,
        targets.segment_name as to_segment_name,
        shares.rows,
        cast(shares.share_of_origin as double) as share_of_origin
    from shares
    left join publishes on shares.publish_id = publishes.publish_id
    left join segment_names as origins
        on shares.dataset = origins.dataset and shares.from_segment_id = origins.segment_id
    left join segment_names as targets
        on shares.dataset = targets.dataset and shares.to_segment_id = targets.segment_id
    where shares.movement != 'stayed'

)

select * from movements
order by publish_id, from_segment_id nulls first, to_segment_id nulls last
