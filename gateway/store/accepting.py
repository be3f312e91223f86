"""Accepting what is new on PostgreSQL, in one statement for a whole group, which is less work at both ends than one for each
table. What is not so is left out, and takes the long way: a duplicate, what is known by a key of before schema 0007, and an event that
something may wait for.
"""

from __future__ import annotations

WEBHOOK_COLUMNS = (
    "event_id", "received_at", "request_id", "source", "method", "url", "headers", "body", "secret_index", "name", "key",
    "kept_key", "occurred_at", "attributes", "data_path", "data", "traceparent",
)  # fmt: skip
# One for each function that the event triggers; without a run it has the reason why it is skipped.
DELIVERY_COLUMNS = ("event_id", "received_at", "function_id", "run_id", "skip_reason", "queued_as", "held", "max_attempts")

# What is text or a number comes as JSON, BYTES as arrays, in the same order.
BYTES = ("headers", "body", "kept_key", "attributes", "data")
ACCEPT = """
with given as materialized (
    select * from rows from (
        json_to_recordset(%b::json) as (
            event_id text, received_at bigint, request_id text, source text, method text, url text, secret_index integer,
            name text, key text, occurred_at bigint, data_path text, traceparent text
        ),
        unnest(%b::bytea[]), unnest(%b::bytea[]), unnest(%b::bytea[]), unnest(%b::bytea[]), unnest(%b::bytea[])
    ) as given (
        event_id, received_at, request_id, source, method, url, secret_index, name, key, occurred_at, data_path, traceparent,
        headers, body, kept_key, attributes, data
    )
    where not exists (select from wait_paths where wait_paths.name = given.name)
    and not exists (select from idempotency_hashes where key_hash = substr(given.kept_key, length(given.kept_key) - 15))
),
-- In one order for all writers: two gateways with the same keys must not wait for each other in a circle.
claimed as (
    insert into idempotency_keys (key, event_id, created_at)
    select kept_key, event_id, received_at from given order by kept_key
    on conflict do nothing returning event_id
),
new as materialized (select given.* from given join claimed using (event_id)),
deliveries_given as materialized (
    select * from json_to_recordset(%b::json) as deliveries_given (
        event_id text, received_at bigint, function_id text, run_id text, skip_reason text, queued_as text, held integer,
        max_attempts integer
    )
    join claimed using (event_id)
),
new_requests as (
    insert into requests (id, source, received_at, method, url, headers, body, secret_index, status, event_id)
    select request_id, source, received_at, method, url, headers, body, secret_index, 'accepted', event_id from new
),
new_events as (
    insert into events (id, name, source, key, occurred_at, received_at, attributes, request_id, data_path, data, traceparent)
    select event_id, name, source, key, occurred_at, received_at, attributes, request_id, data_path, data, traceparent from new
),
new_deliveries as (
    insert into deliveries (event_id, function_id, replay_id, run_id, skip_reason)
    select event_id, function_id, '', run_id, skip_reason from deliveries_given
),
new_runs as (
    insert into runs (id, event_id, function_id, created_at, attempts)
    select run_id, event_id, function_id, received_at, 0 from deliveries_given where run_id is not null
),
new_queue as (
    insert into queue (run_id, function_id, due_at, priority, held, attempt, max_attempts, fence)
    select run_id, queued_as, received_at, 0, held, 0, max_attempts, 0 from deliveries_given where run_id is not null
)
select event_id from claimed
"""
