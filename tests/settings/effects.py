"""Where the effect of each setting is seen: the kind of evidence, and the test that looks at it."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]


class Effect(NamedTuple):
    """`seen` is session (what the driver or the server's session is given), request (what the store is
    sent), explain, or result (what a call returns, raises or waits for)."""  # fmt: skip

    seen: str
    test: str


# Lines of: setting, what is seen, file below tests/ and name of the test, both without `test_`.
_SHARED = """
deadline result layers/config derived_handles_share_what_is_equal
resilience explain layers/config settings_come_from_a_url_too
layers explain layers/config a_layer_of_a_preset_can_be_left_out_or_changed
cursor_secret result thirdparty/planning a_cursor_goes_on_with_its_own_secret_only
sort_cap result unit/buckets what_is_held_client_side_is_bounded
"""
_TABLES = {
    "memory": """
unique result settings/seen unique_fields_are_checked
collections result settings/seen a_collection_has_its_own_settings
table result settings/seen the_default_collection_is_the_settings
timeout result isolation/isolation memory_waits_for_a_lock_as_long_as_its_timeout
changes result unit/change_streams the_lag_grows_while_changes_are_not_taken
changes_keep result unit/change_streams a_reader_that_is_too_slow_is_told
""",
    "sqlite": """
unique result settings/seen unique_fields_are_checked
changes result changes/sqlite a_record_that_a_unique_field_displaces_is_a_change
changes_keep result changes/sqlite pruning_goes_by_the_last_mark_that_is_old_enough
columns request sqlite/columns a_collection_with_columns_has_format_2
indexes request integrations/typed declared_indexes_are_made_and_used
path result settings/effects a_sqlite_file_may_have_a_hash_in_its_name
table result settings/seen the_default_collection_is_the_settings
layout result sqlite/native_data models_over_a_table
key result sqlite/native_tables views_and_tables_without_a_key_are_read_only
version result sqlite/native_tables a_version_column_makes_compare_and_set
create_table result sqlite/dropped it_is_not_created_where_the_config_forbids_it
collections result settings/seen a_collection_has_its_own_settings
pool.readers result sqlite/cancellation readers_run_beside_the_writer_and_each_other
pool.timeout result sqlite/cancellation readers_run_beside_the_writer_and_each_other
busy_timeout result sqlite/errors another_process_with_the_lock_is_waited_for_and_then_told
synchronous session settings/seen the_sessions_of_sqlite_are_as_the_config_says
""",
    "postgres": """
unique result changes/postgres an_empty_table_gets_changes_and_unique_fields_together
changes result changes/postgres an_empty_table_gets_changes_and_unique_fields_together
changes_keep result changes/postgres a_position_expires_once_its_changes_are_pruned
columns request postgres/columns a_table_with_columns_has_format_2
indexes explain postgres/indexes filters_use_their_indexes_and_find_misfits_too
prefix explain postgres/indexes four_thousand_random_characters_in_an_indexed_field_are_stored_and_found
substring explain postgres/indexes filters_use_their_indexes_and_find_misfits_too
gin explain postgres/indexes one_gin_index_serves_equality_on_every_field
host session settings/effects a_hosts_url_reaches_the_driver
port session settings/effects a_hosts_url_reaches_the_driver
database session settings/effects a_hosts_url_reaches_the_driver
user session settings/seen_sessions a_setting_of_postgres_is_an_argument_of_its_driver
password session settings/seen_sessions a_setting_of_postgres_is_an_argument_of_its_driver
passfile session settings/seen_sessions a_setting_of_postgres_is_an_argument_of_its_driver
table result changes/postgres a_table_with_records_is_left_alone_by_connecting
schema_name request postgres/schema ten_first_connects_at_once_all_succeed
create_table result postgres/schema create_table_never_says_what_to_run
layout result postgres/sorted_streams a_table_of_others_is_read_by_a_cursor_too
key result postgres/native a_view_is_read_with_a_key_and_not_written
version result postgres/native a_version_column_is_renewed_by_each_write
zone result postgres/native times_without_a_zone_are_those_of_the_setting
numeric result postgres/native a_value_without_canonical_form_makes_its_record_invalid
collections result postgres/native nothing_of_a_table_that_others_made_is_changed
ssl session postgres/pool_connect tls_is_used_and_verified_when_asked_for
ssl_root_cert session postgres/pool_connect tls_is_used_and_verified_when_asked_for
ssl_cert session settings/seen_sessions a_certificate_of_the_client_is_loaded
ssl_key session settings/seen_sessions a_certificate_of_the_client_is_loaded
ssl_key_password session settings/seen_sessions a_certificate_of_the_client_is_loaded
driver session settings/seen_sessions a_setting_of_postgres_is_an_argument_of_its_driver
pool.min_size result postgres/pool_outage the_background_refills_to_min_size_by_itself
pool.max_size result postgres/pool never_more_connections_than_max_size
pool.timeout result postgres/pool a_full_pool_names_its_holders
pool.max_waiting result postgres/pool one_more_than_max_waiting_is_refused_at_once
pool.max_queries result postgres/pool a_connection_is_replaced_after_max_queries_checkouts
pool.max_idle result postgres/pool idle_connections_above_min_size_end_and_min_size_stays
pool.max_lifetime result postgres/pool a_connection_is_replaced_at_the_end_of_its_lifetime
pool.check_after request postgres/pool_maintenance a_connection_idle_for_long_is_asked_before_it_is_handed_out
pool.lazy result postgres/pool a_lazy_pool_opens_nothing_before_it_is_used
pool.max_opening result settings/seen_sessions no_more_connections_are_opening_than_max_opening
pool.reconnect_timeout result settings/seen_sessions a_pool_gives_up_after_reconnect_timeout
pool.leak_report result postgres/pool a_connection_held_for_long_is_reported_with_its_stack
pool.setup session postgres/codecs codecs_of_a_hook_change_no_record
pool.init session postgres/codecs sql_of_the_user_has_the_codecs
pool.reset session postgres/pool_maintenance the_hooks_run_when_they_should
pool.connect session postgres/pool at_most_two_connections_are_opening_at_once
pool.connection_class session postgres/pool_connect server_settings_and_classes_are_passed_on
pool.record_class session postgres/pool_connect server_settings_and_classes_are_passed_on
preset explain layers/config a_preset_is_one_word_and_seen
connect_timeout result postgres/pool_connect a_server_that_says_nothing_costs_connect_timeout
command_timeout result postgres/failures a_statement_that_takes_too_long_is_a_deadline_error
statement_cache_size session settings/seen_sessions a_setting_of_postgres_is_an_argument_of_its_driver
server_settings session postgres/pool_connect server_settings_and_classes_are_passed_on
options session settings/effects what_the_options_of_hosts_do
libpq session settings/effects parameters_of_libpq_reach_psycopg_and_are_noted_with_asyncpg
application_name session settings/seen_sessions a_setting_of_postgres_is_an_argument_of_its_driver
pooler result postgres/failures all_verbs_work_behind_a_transaction_pooler
target_session_attrs result postgres/pool_connect a_standby_alone_is_not_enough_for_writes
replicas result postgres/pool_replicas a_database_with_replicas_reads_its_own_writes
load_balance_hosts session settings/effects hosts_are_shuffled_on_request
tcp_keepalive session settings/seen_sessions keepalives_are_as_the_config_says
coalesce request postgres/modify an_update_of_another_session_is_not_overwritten
""",
    "elasticsearch": """
hosts request settings/effects a_host_of_elasticsearch_reaches_the_client
index request elasticsearch/failing a_closed_index_is_unavailable
user request settings/seen_sessions credentials_of_elasticsearch_are_in_its_requests
password request settings/seen_sessions credentials_of_elasticsearch_are_in_its_requests
api_key request settings/seen_sessions credentials_of_elasticsearch_are_in_its_requests
bearer_token request settings/seen_sessions credentials_of_elasticsearch_are_in_its_requests
ca session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
ssl_assert_fingerprint session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
verify_certs session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
client_cert session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
client_key session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
http_compress session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
headers request settings/effects headers_are_in_every_request
sniff session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
pool.maxsize session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
pool.timeout result elasticsearch/failing a_full_pool_fails_within_its_timeout_and_names_the_holders
request_timeout session settings/seen_sessions a_setting_of_elasticsearch_is_one_of_its_client
bulk.size request elasticsearch/bulk_chunks columns_are_what_records_are_one_by_one
bulk.bytes request settings/seen_sessions a_bulk_request_has_no_more_than_bulk_bytes
bulk.retries result elasticsearch/ambiguous an_item_that_stays_refused_says_whether_it_may_be_done
layout result elasticsearch/strangers a_stranger_is_recognized_when_it_is_opened
approximate result elasticsearch/native approximate_lets_the_server_judge
create_index result elasticsearch/layout a_missing_index_is_not_made_where_that_is_forbidden
shards request elasticsearch/ranked a_stream_in_slices_gives_each_record_once
replicas request elasticsearch/failing loops_come_and_go_without_a_warning
refresh_interval request elasticsearch/layout a_template_decides_what_the_config_leaves_open
field_limit result elasticsearch/layout beyond_the_field_limit_records_are_judged_here
settings request elasticsearch/failing a_read_only_index_refuses_writes_by_name
fulltext result elasticsearch/ranked passages_are_of_declared_fields_and_leave_the_text_alone
vectors result elasticsearch/ranked vectors_are_declared_when_the_index_is_made
consistency result elasticsearch/writing own_writes_are_seen_by_the_next_search_unless_told_otherwise
slices request elasticsearch/ranked a_stream_in_slices_gives_each_record_once
keep_alive result elasticsearch/failing a_stream_that_stood_still_for_too_long_says_so
""",
    "s3": """
unique result s3/unique claims_by_several_processes_have_one_winner
collections result settings/seen a_collection_of_s3_has_its_own_settings
bucket request s3/request_settings the_bucket_is_in_the_host_or_in_the_path
prefix result s3/records prefixes_and_collections_do_not_see_each_other
region request settings/seen a_setting_of_s3_is_in_its_requests
endpoint_url request s3/profile both_transports_reach_the_endpoint_of_the_profile
aws_access_key_id request settings/seen a_setting_of_s3_is_in_its_requests
aws_secret_access_key result s3/failures wrong_keys_and_missing_buckets_are_named
aws_session_token request settings/seen a_setting_of_s3_is_in_its_requests
profile request s3/access a_profile_gives_keys
layout result s3/drop a_dropped_collection_may_get_the_other_layout
transport request s3/profile both_transports_reach_the_endpoint_of_the_profile
pool.max_connections result settings/seen requests_in_flight_are_bounded
pool.timeout result settings/seen requests_in_flight_are_bounded
timeout result settings/seen a_server_of_s3_that_says_nothing_costs_its_timeout
checksum request s3/access checksums_can_be_asked_for
ca_file session s3/access tls_is_verified
create_bucket result s3/failures wrong_keys_and_missing_buckets_are_named
anonymous request s3/request_settings anonymous_requests_have_no_signature
addressing_style request s3/request_settings the_bucket_is_in_the_host_or_in_the_path
server_side_encryption request s3/request_settings a_setting_is_a_signed_header
sse_kms_key_id request s3/request_settings a_setting_is_a_signed_header
requester_pays request s3/request_settings a_setting_is_a_signed_header
storage_class request s3/request_settings a_setting_is_a_signed_header
cache request s3/records a_search_gets_only_what_changed_with_a_cache
log.memory_bytes result s3/log memory_stays_within_its_bound
log.checkpoint_entries request s3/log a_checkpoint_that_fails_is_not_tried_at_every_entry
log.grace request s3/log a_checkpoint_replaces_entries_after_the_grace_period
changes request s3/log_changes entries_stay_for_changes_keep_beyond_their_checkpoint
changes_keep request s3/log_changes entries_stay_for_changes_keep_beyond_their_checkpoint
""",
    "sqlalchemy": """
unique result settings/seen unique_fields_are_checked
collections result settings/seen a_collection_has_its_own_settings
address session sqlalchemy/config each_form_of_the_url_reaches_the_same_database
engine session sqlalchemy/config an_applications_engine_is_used_and_left_open
table result settings/seen the_default_collection_is_the_settings
create_table result sqlalchemy/dropped it_is_not_created_where_the_config_forbids_it
pool.size session settings/seen_sessions a_setting_of_sqlalchemy_is_one_of_its_pool
pool.max_overflow session settings/seen_sessions a_setting_of_sqlalchemy_is_one_of_its_pool
pool.timeout session settings/seen_sessions a_setting_of_sqlalchemy_is_one_of_its_pool
pool.recycle session settings/seen_sessions a_setting_of_sqlalchemy_is_one_of_its_pool
""",
    "files": """
location result settings/seen a_folder_is_read_as_its_settings_say
s3 request files/bucket a_url_of_a_bucket
aws_access_key_id session settings/seen keys_of_files_are_those_of_their_bucket
aws_secret_access_key session settings/seen keys_of_files_are_those_of_their_bucket
aws_session_token session settings/seen keys_of_files_are_those_of_their_bucket
table result settings/seen a_folder_is_read_as_its_settings_say
format result settings/seen a_folder_is_read_as_its_settings_say
id result files/text ids_from_a_field
records result settings/seen a_folder_is_read_as_its_settings_say
delimiter result files/text settings_of_csv
encoding result files/text settings_of_csv
header result files/text settings_of_csv
null result files/text settings_of_csv
types result files/text settings_of_csv
path result files/text a_path_inside_json
zone result files/arrow options_read_what_is_refused_otherwise
round result files/arrow options_read_what_is_refused_otherwise
on_invalid result files/arrow a_value_without_one_refuses_its_row
""",
}


def _read(table: str) -> dict[str, Effect]:
    rows = (line.split() for line in (_SHARED + table).splitlines() if line)
    return {
        setting: Effect(seen, f"{file.replace('/', '/test_')}.py::test_{name}")
        for setting, seen, file, name in rows
    }


EFFECTS = {backend: _read(table) for backend, table in _TABLES.items()}


@functools.cache
def functions_of(file: str) -> dict[str, str]:
    """Return the tests of a file below `tests` with their source and that of the module's constants."""
    source = (TESTS / file).read_text()
    lines = source.splitlines()
    found: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found
