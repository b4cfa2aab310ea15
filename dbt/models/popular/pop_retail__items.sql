{{ config(unique_key='event_time') }}

with

lines as (

    select *
    from {{ ref('stg_retail__line') }}
    where buyer_id is not null and is_item and not is_return and units > 0 and unit_price_gbp > 0

),

-- a day is named by the midnight that closes it: what is sold or written on it counts from there on
bought as (

    select
        item_id,
        buyer_id,
        date_trunc('day', event_time) + interval '1 day' as bought_on,
        date_trunc('day', greatest(event_time, available_at)) + interval '1 day' as known_on,
        max(trim(description)) as item_name,
        max(built_at) as built_at
    from lines
    group by item_id, buyer_id, bought_on, known_on

),

days as (

    select unnest(generate_series(
        {{ landed_from('retail') }},
        {{ landed_until('retail') }},
        interval '1 day'
    )) as event_time

),

{%- if is_incremental() %}
-- touched by purchases written since the last build, as long as they count, and by days that have ended since
fresh as (

    select
        min(bought_on) as since,
        max(known_on) + interval '{{ var("popular_days") }} days' as until
    from bought
    where built_at > {{ last_built() }}

),

{%- endif %}

affected as (

    select *
    from days
    {%- if is_incremental() %}
    where
        event_time > (select max(this.event_time) from {{ this }} as this)
        or (
            event_time >= (select fresh.since from fresh)
            and event_time < (select fresh.until from fresh)
        )
    {%- endif %}

),

-- every purchase of the days before that was known by then
counted as (

    select
        affected.event_time,
        bought.item_id,
        bought.buyer_id
    from affected
    inner join bought
        on
            affected.event_time >= bought.known_on
            and affected.event_time < bought.bought_on + interval '{{ var("popular_days") }} days'

),

buyers as (

    select
        event_time,
        count(distinct buyer_id) as buyer_count
    from counted
    group by event_time

),

ranked as (

    select
        event_time,
        item_id,
        count(distinct buyer_id) as item_buyer_count,
        row_number() over (
            partition by event_time order by count(distinct buyer_id) desc, item_id
        ) as place
    from counted
    group by event_time, item_id

),

-- items are renamed: the newest name that was known
names as (

    select
        item_id,
        known_on,
        max(item_name) as item_name
    from bought
    group by item_id, known_on

),

final as (

    select
        ranked.item_id,
        names.item_name,
        cast(ranked.item_buyer_count as double) / buyers.buyer_count as score,
        ranked.event_time,
        ranked.event_time as available_at,
        {{ built_at() }} as built_at
    from ranked
    inner join buyers on ranked.event_time = buyers.event_time
    asof left join names
        on
            ranked.item_id = names.item_id
            and ranked.event_time >= names.known_on
    where ranked.place <= 100

)

select * from final
