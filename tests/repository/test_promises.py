"""What the documents promise, sentence by sentence, and the test that would fail if it were not so.

A new promise is a new row: (file, words that stand there, test file, test). A promise without a test gets one or goes.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEIGHTS, FETCH = "tests/checkpoints/test_hostile_weights.py", "tests/checkpoints/test_fetch.py"
SERVICE, FAULTS = "tests/service/test_service.py", "tests/end_to_end/test_faults.py"
AT_ONCE, CONCURRENCY = "tests/end_to_end/test_at_once.py", "tests/service/test_concurrency.py"
SERVER, PROXY, LIBRARY = "tests/web/test_server.py", "tests/web/test_proxy.py", "tests/web/test_library.py"
READ, WRITE, CLI = "tests/files/test_read.py", "tests/files/test_write.py", "tests/cli/test_commands.py"

PROMISES = [
    (
        "SECURITY.md",
        "It never reaches a shell, a path of its choosing or a template",
        FAULTS,
        "test_a_hostile_prompt_stays_text",
    ),
    (
        "SECURITY.md",
        "every later fetch must match",
        FETCH,
        "test_the_first_fetch_records_what_it_got_and_the_next_must_match",
    ),
    (
        "SECURITY.md",
        "a file longer than its pin is not read to the end",
        FETCH,
        "test_a_file_without_end_is_left_when_it_is_too_long",
    ),
    (
        "SECURITY.md",
        "the hub's token is not passed on to its storage servers",
        FETCH,
        "test_the_hubs_token_stays_with_the_hub",
    ),
    (
        "SECURITY.md",
        "a file beside it that is not listed is refused by name",
        WEIGHTS,
        "test_a_file_beside_the_text_encoder_that_the_manifest_does_not_list_is_refused",
    ),
    (
        "SECURITY.md",
        "a folder cannot point outside itself",
        WEIGHTS,
        "test_a_tampered_folder_is_refused_by_name_and_unparsed",
    ),
    (
        "SECURITY.md",
        "no code of theirs is run",
        WEIGHTS,
        "test_conditioners_that_would_fetch_or_run_something_are_refused",
    ),
    (
        "SECURITY.md",
        "The container needs no network",
        FETCH,
        "test_weights_at_hand_are_found_and_loaded_without_the_network",
    ),
    (
        "SECURITY.md",
        "a folder that nobody else may write to",
        "tests/runtime/test_cache_dirs.py",
        "test_a_folder_that_somebody_else_may_have_filled_is_not_used",
    ),
    (
        "SECURITY.md",
        "it answers to loopback names only",
        SERVER,
        "test_a_loopback_address_is_one_however_it_is_spelled",
    ),
    (
        "SECURITY.md",
        "It refuses requests that other sites' pages send",
        PROXY,
        "test_other_sites_pages_cannot_start_or_cancel_anything",
    ),
    (
        "SECURITY.md",
        "forbids every site to frame it",
        SERVER,
        "test_every_answer_says_that_no_other_site_may_frame_or_read_it",
    ),
    ("SECURITY.md", "it drops `webhook` from", PROXY, "test_a_caller_cannot_choose_whom_cog_calls"),
    (
        "SECURITY.md",
        "puts its own address into PUT",
        PROXY,
        "test_asks_cog_to_report_to_us_and_to_nobody_else",
    ),
    (
        "SECURITY.md",
        "Files are never replaced under names that the program chose",
        WRITE,
        "test_what_is_there_already_is_never_replaced_and_the_whole_set_gets_a_number",
    ),
    (
        "SECURITY.md",
        "replace what has the name that you gave",
        WRITE,
        "test_a_name_that_the_user_chose_is_replaced",
    ),
    ("SECURITY.md", "a playlist reaches no network", READ, "test_a_playlist_reaches_nothing_else"),
    (
        "SECURITY.md",
        "What a header claims is checked before anything is allocated",
        READ,
        "test_a_header_cannot_ask_for_more_memory_than_a_recording_may_take",
    ),
    ("SECURITY.md", "300 s at most", READ, "test_an_ffmpeg_that_hangs_is_stopped"),
    (
        "docs/operations.md",
        "no file at all, and no folder that was not there",
        FAULTS,
        "test_a_disk_that_fills_at_any_file_gives_no_partial_set_and_the_next_prediction_works",
    ),
    (
        "docs/operations.md",
        "so that containers may share a `$TMPDIR`",
        SERVICE,
        "test_a_living_servers_files_outlast_a_process_to_which_its_number_says_nothing",
    ),
    (
        "docs/operations.md",
        "which goes when a prediction begins or ends more than a minute later",
        SERVICE,
        "test_files_outlive_the_start_of_other_predictions_and_go_when_they_are_old",
    ),
    (
        "docs/operations.md",
        "folders go after 15 s, the oldest first",
        SERVICE,
        "test_more_files_than_there_is_room_for_stay_for_a_shorter_time_the_oldest_going_first",
    ),
    (
        "docs/operations.md",
        "to the byte, whatever becomes of the others",
        AT_ONCE,
        "test_eight_at_once_answer_as_alone_whatever_befalls_three_of_them",
    ),
    (
        "docs/operations.md",
        "predictions that are waited for are answered first",
        AT_ONCE,
        "test_all_that_are_waited_for_are_answered_before_a_terminated_server_goes",
    ),
    (
        "docs/operations.md",
        "its place is free when its thread has ended",
        CONCURRENCY,
        "test_a_cancelled_prediction_keeps_its_place_until_its_thread_has_ended_and_others_go_on",
    ),
    (
        "docs/operations.md",
        "one that is wanted waits until nobody uses the other",
        CONCURRENCY,
        "test_a_model_is_exchanged_only_when_nobody_uses_it_and_who_waits_is_not_passed",
    ),
    (
        "docs/operations.md",
        "takes no\nmodel from under others",
        CONCURRENCY,
        "test_memory_that_runs_out_in_one_prediction_takes_no_model_from_under_another",
    ),
    (
        "docs/operations.md",
        "The page of `looper serve` waits in line where all places are taken",
        "tests/web/test_waiting.py",
        "test_who_finds_all_places_taken_waits_and_is_served_in_the_order_of_arrival",
    ),
    (
        "SECURITY.md",
        "at most 100 wait in line",
        "tests/web/test_waiting.py",
        "test_more_than_can_be_held_are_refused_in_words",
    ),
    (
        "SECURITY.md",
        "The page is told of its own predictions alone",
        PROXY,
        "test_the_page_hears_what_cog_reports_until_the_end",
    ),
    (
        "docs/operations.md",
        "the prediction fails, `/health-check` turns UNHEALTHY",
        FAULTS,
        "test_a_lost_gpu_makes_the_service_unhealthy",
    ),
    (
        "docs/operations.md",
        "nothing is written",
        FAULTS,
        "test_samples_that_are_not_finite_are_refused_and_nothing_is_written",
    ),
    (
        "docs/operations.md",
        "thrown away and fetched once more, not twice",
        FETCH,
        "test_a_damaged_partial_file_of_a_file_that_is_refused_does_not_loop",
    ),
    (
        "docs/operations.md",
        "the second waits, then finds the folder whole",
        FETCH,
        "test_two_processes_fetch_one_after_the_other_and_each_file_once",
    ),
    (
        "docs/operations.md",
        "refused before the first byte, with the sizes",
        FETCH,
        "test_a_disk_without_room_is_refused_before_anything_is_fetched",
    ),
    (
        "looper/pipeline/maker.py",
        "exactly `request.variations` of them",
        "tests/pipeline/test_maker.py",
        "test_unhelpful_music_still_gives_every_loop_at_exact_length_and_says_so",
    ),
    (
        "looper/web/library.py",
        "A zip is never unpacked to disk, and an entry gives no more bytes than it",
        LIBRARY,
        "test_a_zip_bomb_is_neither_listed_nor_inflated",
    ),
    (
        "looper/web/library.py",
        "no link is followed on the way",
        LIBRARY,
        "test_a_link_or_pipe_swapped_in_after_the_look_leads_nowhere",
    ),
    (
        "looper/web/predictions.py",
        "What is done stays as it is",
        PROXY,
        "test_what_is_done_stays_done_in_whatever_order_webhooks_arrive",
    ),
    (
        "looper/web/cog_process.py",
        "ends with this one, whatever ends it",
        SERVER,
        "test_the_cog_server_ends_with_us_whatever_ends_us",
    ),
    (
        "looper/export/loop_files.py",
        "nothing is replaced, the\n        recording least of all",
        CLI,
        "test_cut_never_writes_over_its_own_recording_and_says_where_the_loop_went",
    ),
    (
        "looper/loops/matching.py",
        "no true peak over -1 dBTP",
        "tests/loops/test_loudness.py",
        "test_levelling_alone_keeps_its_promise_for_clicks_to_one_side",
    ),
]


@cache
def names_of_tests(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@cache
def words_of(path):
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("document", "promise", "path", "test"), PROMISES)
def test_every_promise_still_stands_and_has_its_test(document, promise, path, test):
    assert " ".join(promise.split()) in words_of(document), (
        "the sentence has changed: does its test still hold it?"
    )
    assert test in names_of_tests(path)
