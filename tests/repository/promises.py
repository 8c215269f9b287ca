"""What the documents and public docstrings promise, and the test that would fail if it were not so.

A new promise is a new row: words that stand there, test file, test. A promise without a test gets one or goes.
`NO_PROMISE` holds the sentences that use such words to say something else.
"""

WEIGHTS, FETCH = "tests/checkpoints/test_hostile_weights.py", "tests/checkpoints/test_fetch.py"
LOAD, SERVICE, FAULTS = (
    "tests/checkpoints/test_load.py",
    "tests/service/test_service.py",
    "tests/end_to_end/test_faults.py",
)
SERVER, PROXY, LIBRARY = "tests/web/test_server.py", "tests/web/test_proxy.py", "tests/web/test_library.py"
READ, WRITE, CLI = "tests/files/test_read.py", "tests/files/test_write.py", "tests/cli/test_commands.py"
COG, MAKER, CUT = (
    "tests/end_to_end/test_cog_server.py",
    "tests/pipeline/test_maker.py",
    "tests/loops/test_cut.py",
)
BATCH, LINES, PACK = "tests/batch/test_faults.py", "tests/batch/test_requests.py", "tests/export/test_pack.py"
GRID, PLOTS, LOUDNESS = (
    "tests/beats/test_grid.py",
    "tests/export/test_plots.py",
    "tests/loops/test_loudness.py",
)
ROWS, LINEAR, REQUESTS = (
    "tests/generation/test_batch.py",
    "tests/model/test_linear.py",
    "tests/fuzz/test_requests.py",
)
NAMES, LENGTH, RECORDING = (
    "tests/fuzz/test_names.py",
    "tests/test_length.py",
    "tests/pipeline/test_from_recording.py",
)
AT_ONCE, CONCURRENCY, WAITING = (
    "tests/end_to_end/test_at_once.py",
    "tests/service/test_concurrency.py",
    "tests/web/test_waiting.py",
)

_INTERRUPTED = (WRITE, "test_an_interrupted_set_leaves_nothing")
_PICTURE = (PLOTS, "test_a_picture_that_cannot_be_written_leaves_nothing")
_NEVER_REPLACED = (WRITE, "test_what_is_there_already_is_never_replaced_and_the_whole_set_gets_a_number")
_ALONE = (MAKER, "test_a_variation_does_not_depend_on_how_many_were_asked_for")

PROMISES = {
    "README.md": {
        "**at exactly the asked BPM**": (MAKER, "test_every_loop_has_exactly_the_samples_its_tempo_asks"),
        "request has the same number of samples": (
            MAKER,
            "test_every_loop_has_exactly_the_samples_its_tempo_asks",
        ),
        "loops with itself and into every other one": (
            CUT,
            "test_every_loop_runs_into_every_other_and_into_itself",
        ),
        "| the same seed | the same bytes |": (
            COG,
            "test_the_same_seed_gives_the_same_bytes_and_variation_one_stands_alone",
        ),
        "nothing under the GPL in it": (
            "tests/repository/test_licences.py",
            "test_nothing_under_the_gpl_is_in_the_product",
        ),
        "has these and the same for a server of your own, complete and tried": (
            "tests/repository/test_readme.py",
            "test_what_is_asked_of_a_server_arrives_as_files",
        ),
        "the same seed gives the same files": (
            COG,
            "test_the_same_seed_gives_the_same_bytes_and_variation_one_stands_alone",
        ),
        "names, ranges, defaults and outputs are the same": (
            "tests/end_to_end/test_contract.py",
            "test_the_inputs_are_the_contract_to_the_letter",
        ),
        "You always get as many loops as you asked for": (
            MAKER,
            "test_unhelpful_music_still_gives_every_loop_at_exact_length_and_says_so",
        ),
        "and never by itself": (
            SERVICE,
            "test_without_a_gpu_a_request_for_what_is_not_mapped_is_refused_at_once",
        ),
        "| loop of whole bars that starts on a bar line, the same clips |": (
            "tests/repository/test_readme.py",
            "test_the_figures_are_those_of_the_benches",
        ),
        "| the same on MusicGen's own music": (
            "tests/repository/test_readme.py",
            "test_the_figures_are_those_of_the_benches",
        ),
    },
    "SECURITY.md": {
        "one at a time, without a shell, 64 MiB at most": (
            "tests/web/test_continuations.py",
            "test_a_recording_too_large_is_refused",
        ),
        "at most 100 wait in line": (WAITING, "test_more_than_can_be_held_are_refused_in_words"),
        "The page is told of its own predictions alone": (
            PROXY,
            "test_the_page_hears_what_cog_reports_until_the_end",
        ),
        "It never reaches a shell, a path of its choosing or a template": (
            FAULTS,
            "test_a_hostile_prompt_stays_text",
        ),
        "Prompts: at most 100,000 characters": (
            REQUESTS,
            "test_a_request_is_within_its_bounds_or_refused_by_field",
        ),
        "every later fetch must match": (
            FETCH,
            "test_the_first_fetch_records_what_it_got_and_the_next_must_match",
        ),
        "a file longer than its pin is not read to the end": (
            FETCH,
            "test_a_file_without_end_is_left_when_it_is_too_long",
        ),
        "the hub's token is not passed on to its storage servers": (
            FETCH,
            "test_the_hubs_token_stays_with_the_hub",
        ),
        "afterwards nothing unpickles": (WEIGHTS, "test_a_pickle_in_the_text_encoders_folder_is_never_run"),
        "a file beside it that is not listed is refused by name": (
            WEIGHTS,
            "test_a_file_beside_the_text_encoder_that_the_manifest_does_not_list_is_refused",
        ),
        "a folder cannot point outside itself": (
            WEIGHTS,
            "test_a_tampered_folder_is_refused_by_name_and_unparsed",
        ),
        "no code of theirs is run": (
            WEIGHTS,
            "test_conditioners_that_would_fetch_or_run_something_are_refused",
        ),
        "The container needs no network": (
            FETCH,
            "test_weights_at_hand_are_found_and_loaded_without_the_network",
        ),
        "a folder that nobody else may write to": (
            "tests/runtime/test_cache_dirs.py",
            "test_a_folder_that_somebody_else_may_have_filled_is_not_used",
        ),
        "it answers to loopback names only": (SERVER, "test_a_loopback_address_is_one_however_it_is_spelled"),
        "It refuses requests that other sites' pages send": (
            PROXY,
            "test_other_sites_pages_cannot_start_or_cancel_anything",
        ),
        "forbids every site to frame it": (
            SERVER,
            "test_every_answer_says_that_no_other_site_may_frame_or_read_it",
        ),
        "it drops `webhook` from": (PROXY, "test_a_caller_cannot_choose_whom_cog_calls"),
        "puts its own address into PUT": (PROXY, "test_asks_cog_to_report_to_us_and_to_nobody_else"),
        "Files are never replaced under names that the program chose": _NEVER_REPLACED,
        "replace what has the name that you gave": (WRITE, "test_a_name_that_the_user_chose_is_replaced"),
        "a playlist reaches neither the network nor other files": (
            READ,
            "test_a_playlist_reaches_nothing_else",
        ),
        "What a header claims is checked before anything is allocated": (
            READ,
            "test_a_header_cannot_ask_for_more_memory_than_a_recording_may_take",
        ),
        "300 s at most": (READ, "test_an_ffmpeg_that_hangs_is_stopped"),
        "nothing of a request": (
            "tests/service/test_metrics.py",
            "test_nothing_of_a_request_reaches_the_metrics",
        ),
    },
    "docs/operations.md": {
        "nothing is handed out before all of it is right": (
            WEIGHTS,
            "test_a_tampered_folder_is_refused_by_name_and_unparsed",
        ),
        "no file at all, and no folder that was not there": (
            FAULTS,
            "test_a_disk_that_fills_at_any_file_gives_no_partial_set_and_the_next_prediction_works",
        ),
        "so that containers may share a `$TMPDIR`": (
            SERVICE,
            "test_a_living_servers_files_outlast_a_process_to_which_its_number_says_nothing",
        ),
        "which goes when a prediction begins or ends more than a minute later": (
            SERVICE,
            "test_files_outlive_the_start_of_other_predictions_and_go_when_they_are_old",
        ),
        "folders go after 15 s, the oldest first": (
            SERVICE,
            "test_more_files_than_there_is_room_for_stay_for_a_shorter_time_the_oldest_going_first",
        ),
        "to the byte, whatever becomes of the others": (
            AT_ONCE,
            "test_eight_at_once_answer_as_alone_whatever_befalls_three_of_them",
        ),
        "predictions that are waited for are answered first": (
            AT_ONCE,
            "test_all_that_are_waited_for_are_answered_before_a_terminated_server_goes",
        ),
        "its place is free when its thread has ended": (
            CONCURRENCY,
            "test_a_cancelled_prediction_keeps_its_place_until_its_thread_has_ended_and_others_go_on",
        ),
        "one that is wanted waits until nobody uses the other": (
            CONCURRENCY,
            "test_a_model_is_exchanged_only_when_nobody_uses_it_and_who_waits_is_not_passed",
        ),
        "takes no model from under others": (
            CONCURRENCY,
            "test_memory_that_runs_out_in_one_prediction_takes_no_model_from_under_another",
        ),
        "The page of `looper serve` waits in line where all places are taken": (
            WAITING,
            "test_who_finds_all_places_taken_waits_and_is_served_in_the_order_of_arrival",
        ),
        "the result is the same, later": (
            ROWS,
            "test_running_out_of_memory_halves_the_slots_with_the_same_result",
        ),
        "the prediction fails, `/health-check` turns UNHEALTHY": (
            FAULTS,
            "test_a_lost_gpu_makes_the_service_unhealthy",
        ),
        "nothing is written": (FAULTS, "test_samples_that_are_not_finite_are_refused_and_nothing_is_written"),
        "nothing in a prediction: WAV and MP3 are written without it": (
            WRITE,
            "test_mp3_needs_no_ffmpeg_on_the_path",
        ),
        "| weights truncated, grown, swapped, linked elsewhere, a byte changed | refused by name": (
            WEIGHTS,
            "test_a_tampered_folder_is_refused_by_name_and_unparsed",
        ),
        "| weights written to, replaced or moved while they are loaded | refused": (
            WEIGHTS,
            "test_what_changes_while_it_is_loaded_is_refused_although_its_sum_is_right",
        ),
        "refused or left alone, never run": (
            WEIGHTS,
            "test_a_text_encoder_that_asks_for_its_own_code_does_not_get_it_run",
        ),
        "has files beside it that the manifest does not list | refused by name": (
            WEIGHTS,
            "test_a_file_beside_the_text_encoder_that_the_manifest_does_not_list_is_refused",
        ),
        "refused by name, the old folder stays": (
            LOAD,
            "test_a_bad_published_file_is_refused_unexecuted_and_the_old_folder_stays",
        ),
        "thrown away and fetched once more, not twice": (
            FETCH,
            "test_a_damaged_partial_file_of_a_file_that_is_refused_does_not_loop",
        ),
        "the second waits, then finds the folder whole": (
            FETCH,
            "test_two_processes_fetch_one_after_the_other_and_each_file_once",
        ),
        "refused before the first byte, with the sizes": (
            FETCH,
            "test_a_disk_without_room_is_refused_before_anything_is_fetched",
        ),
        "the same command goes on: every request once, the same bytes": (
            BATCH,
            "test_a_driver_that_is_killed_is_gone_on_from",
        ),
        "with room the same command goes on": (
            BATCH,
            "test_a_full_disk_stops_the_batch_and_with_room_it_goes_on",
        ),
        "| two batches in one folder | the second is refused |": (
            BATCH,
            "test_a_second_driver_on_the_same_folder_is_refused",
        ),
    },
    "looper/__init__.py": {
        "at exactly the asked BPM": (MAKER, "test_every_loop_has_exactly_the_samples_its_tempo_asks"),
    },
    "looper/batch/driver.py": {
        "the same call goes on": (BATCH, "test_a_driver_that_is_killed_is_gone_on_from")
    },
    "looper/batch/manifest.py": {
        "where that fails, nothing of it stays": (
            BATCH,
            "test_a_record_that_the_disk_has_no_room_for_leaves_no_half_line",
        ),
        "made once, the same at every start": (BATCH, "test_random_seeds_stay_what_they_were_over_a_resume"),
    },
    "looper/batch/requests.py": {
        "the same request has the same on every machine": (
            LINES,
            "test_an_id_depends_on_all_that_is_asked_for_and_on_nothing_else",
        ),
        "so that a resumed batch draws the same": (
            BATCH,
            "test_random_seeds_stay_what_they_were_over_a_resume",
        ),
    },
    "looper/batch/verification.py": {
        "nothing if all is as the manifest has it": (
            BATCH,
            "test_verify_names_what_is_missing_changed_or_unknown",
        )
    },
    "looper/beats/grid.py": {
        "Ask for a loop of exactly so many beats": (GRID, "test_a_wanted_number_of_beats_is_given"),
        "Audio that says nothing (silence, noise) gets the asked tempo's grid": (
            GRID,
            "test_audio_that_says_nothing_gets_the_asked_grid_and_no_confidence",
        ),
    },
    "looper/beats/spans.py": {
        "one even where nothing fits": (
            "tests/beats/test_spans.py",
            "test_where_no_beat_fits_one_is_offered_all_the_same",
        )
    },
    "looper/checkpoints/convert.py": {
        "so that `out` is never half old and half new": (LOAD, "test_converting_again_replaces_the_folder")
    },
    "looper/checkpoints/download.py": {
        "nothing is fetched a third time": (
            FETCH,
            "test_a_damaged_partial_file_of_a_file_that_is_refused_does_not_loop",
        ),
        "nothing is left at `path` then": (
            FETCH,
            "test_a_damaged_partial_file_of_a_file_that_is_refused_does_not_loop",
        ),
    },
    "looper/cli/batch.py": {
        "the same command goes on where it was stopped": (
            "tests/cli/test_batch.py",
            "test_ctrl_c_ends_it_with_130_and_the_same_command_goes_on",
        )
    },
    "looper/cli/commands.py": {
        "at exactly the asked BPM": (CLI, "test_make_writes_exact_loops_and_says_so_in_json"),
    },
    "looper/cli/cut.py": {
        "Cut a seamless loop of exactly BPM out of each recording": (
            CLI,
            "test_cut_makes_an_exact_loop_of_a_recording",
        ),
    },
    "looper/cli/options.py": {
        "Refuse a picture in the recording's own place, under whatever name it is reached": (
            CLI,
            "test_the_picture_never_replaces_the_recording",
        )
    },
    "looper/export/figure.py": {"nothing is left behind then": _PICTURE},
    "looper/export/plot_grid.py": {"nothing is left behind then": _PICTURE},
    "looper/export/plot_loops.py": {"nothing is left behind then": _PICTURE},
    "looper/export/pack.py": {
        "nothing is left behind then": (CLI, "test_ctrl_c_ends_it_with_130_and_nothing_half_written")
    },
    "looper/export/loop_files.py": {
        "Nothing that is there is replaced": _NEVER_REPLACED,
        "Files of the same bytes count as written": (
            WRITE,
            "test_the_same_files_again_are_not_written_twice",
        ),
        "nothing is replaced, the recording least of all": (
            CLI,
            "test_cut_never_writes_over_its_own_recording_and_says_where_the_loop_went",
        ),
    },
    "looper/files/atomic.py": {
        "under the first names at which nothing else stands": _NEVER_REPLACED,
        "A file that is there already with the same bytes counts as written": (
            WRITE,
            "test_the_same_files_again_are_not_written_twice",
        ),
        "nothing is left behind then": _INTERRUPTED,
    },
    "looper/files/text.py": {
        "Lower-case ASCII letters, digits and single hyphens, at most 40": (
            NAMES,
            "test_a_slug_is_a_file_name_everywhere",
        ),
        '"loop" when nothing is left': (NAMES, "test_a_slug_is_a_file_name_everywhere"),
        "no control or direction-changing characters, at most `limit` long": (
            NAMES,
            "test_a_tag_is_one_line_of_the_length_that_fits",
        ),
    },
    "looper/files/mp3.py": {"C at most 2": (WRITE, "test_what_cannot_be_written_is_refused_by_name")},
    "looper/files/write.py": {
        "so that the same loop is the same file": (WRITE, "test_the_same_loop_is_the_same_file"),
        "nothing is left behind then": (
            WRITE,
            "test_a_full_disk_leaves_nothing_behind_and_an_older_file_whole",
        ),
    },
    "looper/generation/messages.py": {
        "and on nothing else in the request": (
            "tests/generation/test_generator.py",
            "test_a_row_is_the_same_alone_and_among_others_with_other_texts",
        ),
        "they repeat bit for bit on the same kind of device": (
            "tests/generation/test_generator.py",
            "test_it_repeats_to_the_bit_and_differs_by_seed_variation_and_attempt",
        ),
    },
    "looper/generation/generator.py": {
        "Never use CUDA graphs": (
            "tests/generation/test_fake_cuda.py",
            "test_a_generator_without_graphs_captures_none",
        ),
    },
    "looper/generation/sampling.py": {
        "The same key gives the same numbers": (ROWS, "test_random_numbers_hang_on_the_key_alone"),
        "the same bits whatever the other rows": (
            "tests/generation/test_fake_cuda.py",
            "test_running_sums_have_one_shape_whatever_the_batch",
        ),
    },
    "looper/loops/__init__.py": {
        "a seamless loop of exactly the asked tempo": (
            CUT,
            "test_cut_has_the_exact_sample_count_and_the_shape_of_its_input",
        )
    },
    "looper/loops/cut.py": {
        "Exactly so many bars": (LENGTH, "test_bars_decide_the_length_of_what_is_made_and_of_what_is_cut"),
        "Cut a loop of exactly `bpm`": (
            CUT,
            "test_cut_has_the_exact_sample_count_and_the_shape_of_its_input",
        ),
    },
    "looper/loops/loop.py": {
        "The same loop at 32000, 44100 or 48000 Hz": (
            "tests/files/test_studio_formats.py",
            "test_a_round_keeps_its_waves_at_another_rate",
        ),
        "The asked tempo, exactly": (CUT, "test_cut_has_the_exact_sample_count_and_the_shape_of_its_input"),
    },
    "looper/loops/loudness.py": {
        "the input where nothing passes the ceiling": (
            LOUDNESS,
            "test_a_loop_under_the_ceiling_is_not_touched",
        ),
        "true peaks at most `CEILING_DBTP`": (
            LOUDNESS,
            "test_hats_up_to_the_nyquist_frequency_are_heard_and_limited_by_their_real_peak",
        ),
    },
    "looper/loops/matching.py": {
        "no true peak over -1 dBTP": (
            LOUDNESS,
            "test_levelling_alone_keeps_its_promise_for_clicks_to_one_side",
        ),
        "A loop comes out the same however many others follow it": (
            CUT,
            "test_a_loop_does_not_depend_on_how_many_follow_it",
        ),
    },
    "looper/loops/seam.py": {
        "across the wrap both loops play the same few milliseconds": (
            CUT,
            "test_every_loop_runs_into_every_other_and_into_itself",
        )
    },
    "looper/model/linear.py": {
        "the next number whose rows come out the same to the bit": (
            LINEAR,
            "test_a_row_of_a_product_is_the_same_at_every_place_of_every_batch",
        ),
        "The same as each other, wherever a row stands": (
            LINEAR,
            "test_a_row_of_a_product_is_the_same_at_every_place_of_every_batch",
        ),
    },
    "looper/pipeline/from_recording.py": {
        "whole bars, of 20 s at most, is a loop already": (
            RECORDING,
            "test_whole_bars_of_over_twenty_seconds_are_no_loop_as_they_are",
        )
    },
    "looper/pipeline/maker.py": {
        "its tempo is that of the source, within 7.5 %, and of the loops exactly": (
            RECORDING,
            "test_a_loop_of_another_tempo_is_brought_to_the_asked_one_whole",
        ),
        "exactly `request.variations` of them": (
            MAKER,
            "test_unhelpful_music_still_gives_every_loop_at_exact_length_and_says_so",
        ),
        "Variation k is the same whatever the number of variations asked for": _ALONE,
    },
    "looper/pipeline/takes.py": {
        "Drums are in no key, and lose nothing by that": (
            MAKER,
            "test_a_key_that_no_candidate_is_in_is_told_and_drums_are_none_the_worse_for_it",
        )
    },
    "looper/pipeline/result.py": {
        "The same loops at 32000, 44100 or 48000 Hz": (
            "tests/files/test_studio_formats.py",
            "test_a_set_at_another_rate_still_runs_into_itself_equally_loud_under_the_ceiling",
        ),
        "all have the same length and loudness": (
            CUT,
            "test_loops_of_a_set_are_equally_loud_under_the_ceiling_and_without_dc",
        ),
    },
    "looper/request.py": {
        "Exactly so many bars": (LENGTH, "test_bars_decide_the_length_of_what_is_made_and_of_what_is_cut"),
        "at most an hour": (REQUESTS, "test_a_cut_is_within_its_bounds_or_refused_by_field"),
    },
    "looper/web/cog_process.py": {
        "ends with this one, whatever ends it": (SERVER, "test_the_cog_server_ends_with_us_whatever_ends_us"),
    },
    "looper/web/continuations.py": {
        "refuses a second one while one is under way": (
            "tests/web/test_continuations.py",
            "test_one_at_a_time_and_a_cancel_ends_its_process",
        )
    },
    "looper/web/guard.py": {
        "Refuses foreign host names (DNS rebinding) and what other sites' pages send": (
            PROXY,
            "test_other_sites_pages_cannot_start_or_cancel_anything",
        )
    },
    "looper/web/library.py": {
        "A zip is never unpacked to disk, and an entry gives no more bytes than it": (
            LIBRARY,
            "test_a_zip_bomb_is_neither_listed_nor_inflated",
        ),
        "so nothing leads out of it": (LIBRARY, "test_no_link_leads_to_a_folder_elsewhere"),
        "no link is followed on the way": (
            LIBRARY,
            "test_a_link_or_pipe_swapped_in_after_the_look_leads_nowhere",
        ),
    },
    "looper/web/predictions.py": {
        "What is done stays as it is": (
            PROXY,
            "test_what_is_done_stays_done_in_whatever_order_webhooks_arrive",
        ),
        "of what was forgotten, or never begun, it comes too late": (
            PROXY,
            "test_a_report_that_comes_after_its_prediction_was_forgotten_makes_no_running_one",
        ),
        "nothing is undone that has gone on since": (
            PROXY,
            "test_what_has_gone_on_since_it_was_asked_for_is_not_undone_by_a_late_refusal",
        ),
    },
    "looper/web/proxy.py": {
        "The request's body of at most `largest` bytes, no more of it read": (
            PROXY,
            "test_a_body_without_an_end_is_not_read_to_it",
        )
    },
}

NO_PROMISE = [
    # comparisons and words of the trade
    "what it gives | a set of loops",
    "prints the same JSON",
    "macOS and Windows",
    "a disk that fills all the same",
    "check_rate: Raise ValueError for a sample rate that nothing is listened to at",
    "RayPlan: ",
    "Verdict: ",
    "metrical_hypotheses: ",
    "phases: ",
    "find_period: ",
    "refine: Place a known beat exactly",
    "TempoMap.shifted: ",
    "Wanted: it says nothing about small text files",
    "split: Cut into pieces of at most",
    "check_rows: ",
    "Lane.",
    "SamplingRule: ",
    "RequestTask",
    "stretch: Play `samples`",
    "Window: ",
    "BatchInvariantLinear: ",
    "Layer.feed_forward: ",
    "RemotePacks: Raises",
    "C at most 2",
    "LoopMaker.vary: Raises",
    "download_all: return the pins with nothing left unknown",
    "heard_in_chroma: None where it says nothing",
    "Loop.heard_key: None where nothing",
    "other_cuts: ",
    "seam_passages: ",
    "LoopRequest.with_seed: ",
    "Unneeded: ",
    "keep_in_temp_folder: ",
    "GraphPool: ",
    "Graphed: ",
    "FieldError.named: ",
    "is_silent: ",
    "Models.is_healthy: ",
    "wait_until_drained: ",
    "as nothing shall be written there",
    "Undo `begin`, whose request was refused",
    "CutRequest: float or None Upper bound",
]
