with publishes as (

    select * from {{ ref('stg_publish_log') }}

),

metrics as (

    select * from {{ ref('stg_segment_metrics') }}

),

mapped as (

    select
        *,
        cast(cast(figures as json) as map (varchar, double)) as values_by_metric
    from publishes

),

figures as (

    select
        publish_id,
        dataset,
        version,
        published_at,
        reason,
        unnest(map_keys(values_by_metric)) as metric,
        unnest(map_values(values_by_metric)) as value
    from mapped

),

compared as (

    select
        *,
        lag(value) over (partition by dataset, metric order by publish_id) as previous_value
    from figures

),

described as (

    select
        compared.publish_id || '.' || compared.metric as figure_key,
        compared.publish_id,
        compared.dataset,
        compared.version,
        compared.published_at,
        compared.reason,
        compared.metric,
        compared.value,
        compared.previous_value,
        compared.value - compared.previous_value as change,
        metrics.description
    from compared
    left join metrics on compared.dataset = metrics.dataset and compared.metric = metrics.metric

)

select * from described
order by dataset, metric, publish_id
