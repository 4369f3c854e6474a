with sizes as (

    select * from {{ ref('stg_segment_sizes') }}

),

descriptions as (

    select * from {{ ref('stg_segment_descriptions') }}

),

members as (

    select * from {{ ref('stg_segments') }}

),

transitions as (

    select * from {{ ref('stg_segment_transitions') }}

),

last_publishes as (

    select * from {{ ref('stg_publish_log') }}
    where is_last

),

confidences as (

    select
        segment_key,
        median(confidence) as median_confidence
    from members
    group by segment_key

),

last_movements as (

    select transitions.*
    from transitions
    inner join last_publishes on transitions.publish_id = last_publishes.publish_id
    where transitions.movement != 'stayed'

),

arrivals as (

    select
        dataset,
        to_segment_id as segment_id,
        sum(rows) as rows
    from last_movements
    where to_segment_id is not null
    group by dataset, to_segment_id

),

departures as (

    select
        dataset,
        from_segment_id as segment_id,
        sum(rows) as rows
    from last_movements
    where from_segment_id is not null
    group by dataset, from_segment_id

),

overview as (

    select
        sizes.segment_key,
        sizes.dataset,
        sizes.version,
        sizes.segment_id,
        sizes.segment_name,
        sizes.rows,
        sizes.share,
        cast(confidences.median_confidence as double) as median_confidence,
        cast(coalesce(arrivals.rows, 0) as bigint) as rows_came,
        cast(coalesce(departures.rows, 0) as bigint) as rows_went,
        last_publishes.published_at,
        descriptions.summary
    from sizes
    left join descriptions on sizes.segment_key = descriptions.segment_key
    left join confidences on sizes.segment_key = confidences.segment_key
    left join last_publishes on sizes.dataset = last_publishes.dataset
    left join arrivals on sizes.dataset = arrivals.dataset and sizes.segment_id = arrivals.segment_id
    left join departures on sizes.dataset = departures.dataset and sizes.segment_id = departures.segment_id

)

select * from overview
order by dataset, segment_id
