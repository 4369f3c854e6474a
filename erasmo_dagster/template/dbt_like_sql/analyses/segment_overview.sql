-- One row per segment: its size, its share and how clearly its rows are in it.
with sizes as (

    select * from segment_sizes

),

confidences as (

    select
        dataset,
        segment_id,
        median(confidence) as median_confidence
    from segments
    group by dataset, segment_id

)

select
    sizes.dataset,
    sizes.segment_id,
    sizes.segment_name,
    sizes.rows,
    round(sizes.share, 3) as share,
    round(confidences.median_confidence, 3) as median_confidence
from sizes
inner join confidences on sizes.dataset = confidences.dataset and sizes.segment_id = confidences.segment_id
order by sizes.dataset, sizes.segment_id
