-- The shares of a dataset's segments sum to 1.
with overview as (

    select * from {{ ref('segment_overview') }}

),

sums as (

    select
        dataset,
        sum(share) as share
    from overview
    group by dataset

)

select * from sums
where share is null or abs(share - 1) > 1e-9
