-- One row per entity: the ten of each dataset that lie closest to a second segment.
select
    dataset,
    entity_key,
    segment_id,
    round(confidence, 4) as confidence
from segments
qualify row_number() over (partition by dataset order by confidence, entity_key) <= 10
order by dataset, confidence, entity_key
