"""What each change of who serves stands on: SQL over the ledger's rows, which the chain asks.

A row may be just as it was put down and still be nobody's decision: whoever can write into the ledger adds one as the
project does. A promotion therefore counts where the gate's decision of its model, version and night says so, about the
version that it replaces, and with the approvals that this decision asks for; a rollback where it undoes a promotion; a
person's change where it brings back what was promoted once, and a second person has confirmed it if it waited for one.
"""

from typing import Final

_NEEDED = (
    "case when jsonb_typeof(d.evidence #> '{promise,approvals}') = 'number' "
    "then (d.evidence #>> '{promise,approvals}')::numeric else 0 end"
)
"""How many people have to approve, as the decision's evidence says; 0 in one from before it said so."""
_GIVEN = """
    select case when bool_or(given ->> 'source' like 'hindcast:%') then 'Infinity'::numeric else count(*) end
    from jsonb_array_elements(
        case when jsonb_typeof(p.approval -> 'given') = 'array' then p.approval -> 'given' else '[]' end
    ) as given
    where given -> 'chosen' in ('"Approve"', '["Approve"]') and given ->> 'approved_by' is not null
        and given -> 'subject' = jsonb_build_array(
            p.model, p.version, p.night, coalesce(d.evidence #>> '{page,sha256}', d.evidence ->> 'digest')
        )
"""
"""How many approvals of exactly this are in a promotion; without end where a hindcast assumes them. Names are not
compared: the gate did, by rules that the ledger does not know, and one who was erased has none any more."""
_PROMOTIONS = f"""
    select 'promotion' as relation, jsonb_build_object('model', p.model, 'version', p.version) as key,
        case
            when d.model is null then 'follows from no decision'
            when d.verdict <> 'promote' then 'follows from a decision that says ' || d.verdict
            when d.champion is distinct from p.replaced then 'replaces another one than its decision was about'
            else 'has not the approvals that its decision asks for'
        end as what
    from promotion p
    left join decision d on d.model = p.model and d.night = p.night and d.challenger = p.version
    where (
        d.model is null or d.verdict <> 'promote' or d.champion is distinct from p.replaced
        or ({_GIVEN}) < {_NEEDED}
    ) and (cast(:model as text) is null or p.model = :model)
"""
_ROLLBACKS = """
    select 'watch', jsonb_build_object('model', w.model, 'night', w.night), 'undoes no promotion'
    from watch w
    left join promotion p on p.model = w.model and p.version = w.champion and p.night < w.night
    where w.verdict = 'rollback' and (p.model is null or p.replaced is distinct from w.previous)
        and (cast(:model as text) is null or w.model = :model)
"""
_OPERATIONS = """
    select 'operation_end', jsonb_build_object('id', e.id),
        case
            when o.id is null then 'ends what nobody has asked for'
            when o.until is not null and e.decided_by is null then 'was confirmed by nobody'
            else 'puts a version in service that was never promoted'
        end
    from operation_end e
    left join operation o on o.id = e.id
    left join promotion p on p.model = o.model and p.version = o.version and p.night <= e.night
    where e.outcome = 'done' and (
        o.id is null or (o.until is not null and e.decided_by is null)
        or (o.version is not null and o.action in ('rollback', 'pin', 'unretire') and p.model is null)
    ) and (cast(:model as text) is null or o.model = :model)
"""
UNFOUNDED: Final = f"""
    select found.relation, found.key, found.what
    from ({_PROMOTIONS} union all {_ROLLBACKS} union all {_OPERATIONS}) as found
    where (
        select entry.action from chain entry
        where entry.relation = found.relation and entry.key = found.key order by entry.id desc limit 1
    ) is distinct from 'accept'
    order by 1, 2
"""
"""What changes who serves and stands on nothing, of a `:model` or, NULL, of all: `relation`, `key`, `what`. Not what a
person has accepted as it was found."""
PROMOTING: Final = (
    "exists (select 1 from promotion p where (p.model, p.night, p.version) = (t.model, t.night, t.challenger))"
)
"""Of decisions `t` those that promotions follow from."""
