with descriptions as (

    select * from {{ ref('stg_segment_descriptions') }}

),

traits as (

    select * from {{ ref('stg_segment_profile') }}

),

strongest_traits as (

    select
        segment_key,
        max(case when trait_rank = 1 then description end) as first_trait,
        max(case when trait_rank = 2 then description end) as second_trait,
        max(case when trait_rank = 3 then description end) as third_trait
    from traits
    group by segment_key

),

profiles as (

    select
        descriptions.segment_key,
        descriptions.dataset,
        descriptions.version,
        descriptions.segment_id,
        descriptions.segment_name,
        descriptions.rows,
        descriptions.share,
        strongest_traits.first_trait,
        strongest_traits.second_trait,
        strongest_traits.third_trait,
        descriptions.rule,
        descriptions.rule_precision,
        descriptions.rule_coverage,
        descriptions.typical_row
    from descriptions
    left join strongest_traits on descriptions.segment_key = strongest_traits.segment_key

)

select * from profiles
order by dataset, segment_id
