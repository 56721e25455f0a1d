"""Every row of docs/bad_input.md is held by tests."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# How a row of the page begins, and below it the tests that hold it, in the page's order.
HELD_BY = """
an image cut off, a text with the name of an image, an empty file; in training
    test_an_unreadable_image_is_named_whatever_reads_it
    test_a_worker_says_which_image_it_could_not_read
the same, after two days
    test_unreadable_images_may_be_skipped_in_training_alone
the same, before training
    test_an_image_cut_off_in_the_middle
    test_images
    test_unreadable_images_that_training_may_skip_do_not_stop_it
the same, among the exemplars of a prompt bank
    test_missing_and_unreadable_images_are_named
the same, in inference
    test_broken_images_are_named_and_the_others_go_on
a step of the pipeline fails on one image
    test_a_step_that_fails_on_an_image_names_it
image files are missing
    test_missing
    test_so_many_are_looked_for_before_training
    test_images_without_boxes_need_not_be_there_where_training_leaves_them_out
    test_missing_and_unreadable_images_are_named
file names with backslashes, `%20`, another suffix, or a folder that `data_prefix` has, too
    test_what_is_there_instead_of_a_missing_file
images that are tested and trained on
    test_images_that_are_tested_and_trained_on
an image of another size than annotated
    test_broken_and_of_another_size
    test_image_of_another_size_than_annotated
photographs turned by EXIF, annotated otherwise than the loader turns them
    test_photographs_turned_by_exif
    test_what_is_proposed_for_turned_photographs_is_clean
    test_photographs_upside_down_are_a_note_where_no_size_tells
    test_images_are_read_as_each_pipeline_does
a format, size or depth of images that PIL knows and OpenCV does not, or the reverse
    test_the_loader_decides_what_can_be_read
    test_no_image_is_too_large_for_the_check_alone
16-bit images of fewer bits, such as 12
    test_twelve_bits_of_sixteen
    test_all_sixteen_bits_lose_nothing_that_matters
    test_values_by_hand
    test_a_loader_of_deep_images_serves_and_leaves_arrays_alone
floating-point or 32-bit TIFF
    test_floating_point_values_need_another_loader
    test_floats_with_gaps_and_negative_values
other files among the images of a folder, in inference
    test_a_folder_gives_what_opencv_reads_and_tells_what_is_left_out
a list, COCO file, tar file or video given to `detect` that is none, or has images nowhere
    test_mistakes_name_the_file
    test_folders_and_tar_files_without_images
a kill, a full disk, a lost mount, a reader killed while `detect` runs
    test_killed_and_continued_by_two_processes
    test_a_disk_without_room
    test_a_lost_folder_is_no_broken_image
    test_a_reading_process_that_dies
    test_a_signal_ends_the_run_and_it_goes_on
results of another run in the folder of `detect`
    test_another_run_is_not_mixed_in
an image of width or height zero, or without, in the annotations
    test_no_size
    test_training_goes_on_without_the_boxes_that_are_none
    test_entries_without_a_key_are_named
boxes with NaN or infinity
    test_kinds
    test_training_goes_on_without_the_boxes_that_are_none
the same, or inverted boxes, that a dataset or pipeline of your own lets through to the model
    test_boxes_not_finite_or_inverted_in_the_model_stop_before_the_weights
inverted or flat boxes, boxes outside the image
    test_kinds
    test_training_goes_on_without_the_boxes_that_are_none
huge boxes, boxes that reach beyond the image
    test_corners_instead_of_sizes_are_an_error
    test_training_goes_on_without_the_boxes_that_are_none
tiny, zero-area, identical or outside boxes that do reach the model
    test_losses_and_all_gradients_are_finite
any of these boxes among the candidates for exemplars
    test_boxes_that_are_none_are_left_out
    test_boxes_outside_the_image_are_clipped_or_left_out
    test_annotations_that_stop
unusable boxes drawn for inference
    test_unusable_boxes_are_named
a category id that the file does not list
    test_unknown_category
    test_training_goes_on_without_the_boxes_that_are_none
ids that are text in one list of a file and numbers in another
    test_an_id_may_be_text_in_one_list_and_a_number_in_another
more classes than `model.bbox_head.num_classes`
    test_too_many_classes
    test_label_beyond_the_embedding_is_named
two categories of one name, or of one id
    test_repeated_name
    test_repeated_id
    test_category_named_twice
classes of the config that the file lacks
    test_a_misspelt_class
    test_missing_class_is_named_with_the_nearest
files with other classes, or the same in another order, in one loader
    test_training_on_two_lists
    test_the_same_names_in_another_order
    test_tested_together_or_each_by_itself
    test_training_on_two_lists_is_refused
    test_one_metric_for_two_lists_is_refused_before_the_first_step
    test_fixed_classes_keep_their_place
    test_the_remedy_trains_and_leaves_the_names_in_the_checkpoint
files tested as one that share image ids
    test_one_metric_for_two_files_with_the_same_image_ids_is_refused
`metainfo=dict(CLASSES=…)`, `data_prefix='images/'`, `ann_file=[a, b]`, as mmdet 2 had them
    test_arguments_in_mmdet_2s_form
    test_what_only_looks_like_mmdet_2
    test_arguments_in_mmdet_2s_form_are_refused
`data_prefix` without `img`
    test_arguments_in_mmdet_2s_form
    test_arguments_in_mmdet_2s_form_are_refused
keys of mmdet 2: `classes`, `img_prefix`, `samples_per_gpu`
    test_keys_of_mmdet_2_are_named_in_todays_form
no image, or none that `filter_cfg` keeps
    test_sets_without_images_are_named
no annotation, or none that can be used
    test_no_boxes_at_all
    test_batch_without_boxes_teaches_nothing
boxes with `iscrowd` or `ignore`
    test_what_is_ignored_need_not_be_found
    test_crowds
    test_crowds_are_not_trained_on
a category without a box in the training set
    test_without_a_box
a category without a box in any file, such as the root of a Roboflow export
    test_without_a_box
    test_the_root_of_a_roboflow_export
    test_the_root_of_a_roboflow_export_needs_no_prompt
a tested class without any box among the exemplars
    test_a_class_without
    test_a_class_that_the_tested_file_has_no_box_of_needs_none
    test_missing_classes_are_named
    test_classes_without_a_box_may_be_skipped
a line of a list of exemplars (`bank.support`) that is none, or contradicts another one
    test_a_broken_line_is_named_by_its_number
    test_a_line_that_is_wrong_is_named
    test_other_files_are_told_apart
boxes of such a list without width or height inside their image
    test_flat_boxes_are_left_out
    test_summary_says_that_nothing_was_drawn_and_what_was_left_out
classes of such a list that are not tested
    test_names_that_differ_and_ids_that_do_not
a folder of such lists where nothing says which is meant
    test_a_folder_of_lists_that_nobody_names
annotations, images or categories without a key
    test_keys_of_annotations
    test_entries_without_a_key_are_named
    test_annotations_that_stop
    test_a_file_is_read_or_named
annotation ids that are 0, negative, text, huge, repeated or missing
    test_annotations_are_numbered_anew
    test_ids_of_annotations_change_nothing
    test_by_hand
    test_an_annotation_of_id_0_under_mmdets_metric
    test_repeated_annotation_id
    test_what_mmdets_own_classes_cannot_read
`area` missing, null or text; `iscrowd` or `ignore` missing, null, true, "0" or "false"; width
    test_area
    test_crowds
    test_sizes
    test_values_in_other_words
    test_what_mmdets_own_classes_cannot_read
    test_a_size_that_is_a_text
`iscrowd` or `ignore` that is neither 0 nor 1
    test_crowds_that_are_unclear
    test_crowds
annotations of images that are not listed
    test_unknown_image
    test_annotations_that_are_left_out
a file without `annotations` (test sets)
    test_a_test_set_without_annotations
    test_a_file_of_a_test_set
    test_no_annotations
the evaluator's `ann_file` has other image ids, or other pictures under the same ids
    test_the_evaluator_was_forgotten
    test_an_evaluator_of_other_images
    test_an_evaluator_of_other_pictures_under_the_same_ids
    test_an_image_is_missing
    test_another_picture_under_its_id
the evaluator's `ann_file` lacks a class, or has the classes in another order
    test_an_evaluator_that_lacks_a_class
    test_a_class_is_missing
    test_the_order_of_categories_matters_to_mmdets_metric_alone
    test_labels_stand_for_names
the evaluator's `ann_file` has other boxes
    test_an_evaluator_of_other_boxes
the same data in another file, in another order, or as a part of a larger file
    test_an_evaluator_of_the_same_data
    test_an_evaluator_with_the_same_data_elsewhere
    test_some_of_the_classes_and_of_the_images
an annotation file that is no JSON, cut off, or not COCO
    test_no_coco_file
    test_broken_file_is_named
    test_broken_file
an annotation file in UTF-16, Latin-1 or with a byte order mark
    test_another_encoding
any other damage to an annotation file
    test_a_file_is_read_or_named
spaces and other alphabets in the paths of data, images, config, work dir, checkpoint and bank,
    test_spaces_and_other_alphabets_in_every_path
class names in Chinese, Japanese, Korean, Thai or Hindi on pictures
    test_names_in_chinese_japanese_and_korean_are_readable
    test_chinese_japanese_and_korean_names_are_readable_on_pictures
    test_the_first_regular_font_with_all_letters_is_taken
    test_without_a_font_a_number_is_drawn_and_the_remedy_told_once
class names with dollar signs on pictures
    test_dollar_signs_are_drawn_not_read_as_formulas
a misspelt config key, in a file or after `--cfg-options`
    test_each_place
several misspelt keys
    test_all_are_said_at_once
a misspelt key in a member of a `DatasetGroup`
    test_members_of_a_group_are_checked_with_what_they_share
misspelt keys in a real run through mmdet's script
    test_misspelt_keys_and_a_bad_work_dir_stop_it
`--cfg-options` with a variable of the config (`lr`, `data_root`), a key of mmdet 2
    test_a_variable_is_refused_with_its_places
    test_a_key_of_mmdet_2_or_of_nobody_is_refused_with_the_right_one
    test_what_is_read_or_may_be_read_is_left_alone
    test_tools_and_python_say_it_alike
`--cfg-options` without `=`, or with an entry that a list has not
    test_an_option_that_cannot_be_read_ends_it
    test_what_cannot_be_merged_is_named
    test_an_option_of_the_config_without_a_value
number of levels, width or feature maps changed in some keys of the model only
    test_levels_changed_in_one_place
    test_width_changed_in_one_place
    test_maps_of_the_backbone
    test_sizes_of_the_model_that_differ
    test_the_model_itself_refuses_them
`model.test_cfg.negatives` with a value that is none
    test_wrong_settings_are_refused_as_the_model_is_built
    test_of_the_model
a mistyped `type=`
    test_a_mistyped_type_is_placed_and_corrected
a file where the work directory, or a folder above it, should be
    test_a_file_in_its_place
a work directory that may not be written
    test_a_folder_of_somebody_else
the disk is full while a checkpoint is written
    test_no_room_for_the_second
the disk is full at the first checkpoint
    test_no_room_for_the_first
the disk is full as `last_checkpoint` is written
    test_a_name_that_could_not_be_written_is_put_back
SIGKILL while a checkpoint is written
    test_killed_while_writing
the disk is full elsewhere (logs, predictions)
    test_a_full_disk_outside_of_checkpoints
a truncated, empty or foreign file for `--resume`, `load_from` or the test; an empty
    test_broken_checkpoints
`--resume` with weights alone
    test_weights_alone_are_no_stopped_run
`--resume` or a test with a checkpoint of another model's size
    test_a_checkpoint_of_another_model
PET-DINO's weights in a config with another model, or in that of the other size
    test_mim_test_takes_them_or_says_which_config
    test_what_they_do_not_fit_is_refused_by_each_loader
    test_tools_take_them
PET-DINO's weights are not where a config has them
    test_where_they_are_not_the_way_to_them_is_said
no internet, a proxy or a wrong address where weights are a URL
    test_weights_that_cannot_be_fetched
    test_what_cannot_be_fetched_is_named
    test_what_the_checkpoint_has_is_left_out_of_the_initialisation
a download that is cut short, or a proxy's page in its place
    test_what_came_instead_of_a_checkpoint_is_named
no file of the class names' embeddings, and no transformers or BERT to make it with
    test_text_embeddings_that_cannot_be_made_end_the_start
    test_a_model_that_is_nowhere_is_said_with_both_remedies
    test_where_it_cannot_be_made_both_remedies_are_told
the GPU's memory is not enough
    test_the_gpus_memory
the machine's memory is not enough
    test_the_machines_memory_in_a_test
a loader's process is killed (memory, /dev/shm)
    test_a_killed_loader
the name of a config that is not there
    test_an_unknown_config_names_the_near_ones
    test_an_unknown_config_ends_it
`_base_ = 'mmdet_dino_r1::…'` where the package is not installed
    test_a_base_in_a_package_that_is_not_installed
Python started in a folder that has one named `mmdet_dino_r1`
    test_a_folder_of_its_name_does_not_hide_an_editable_install
    test_nothing_loads_checkpoints_where_a_folder_passes_for_the_package
OpenMMLab's mmdet installed over onedl-mmdetection
    test_what_mim_installed_over_onedl_is_told_with_the_commands_that_repair_it
one of the two uninstalled again
    test_files_that_went_with_another_distribution_are_told
a file `mmdet.py`, `mmcv.py`
    test_a_file_of_the_name_of_a_package_is_named
NumPy 2 beside a PyTorch built for NumPy 1
    test_numpy_2_beside_a_torch_built_for_numpy_1_is_told
transformers 4.56 or newer beside PyTorch 2.1
    test_what_does_not_fit_is_said_with_the_remedy
the bare name of a shipped config
    test_a_bare_name_becomes_the_path
`query_view --device` that is not there
    test_what_is_wrong_is_said
annotations, images, weights or a bank to begin with that are not there
    test_mistakes_are_said_before_anything_is_tuned
    test_real_mistakes
a bank to begin with that other weights made
    test_mistakes_are_said_before_anything_is_tuned
    test_references_that_cannot_be_tuned_on
a class to tune whose name is nearly one of the bank to begin with
    test_a_name_that_is_nearly_one_of_the_bank_is_told
points instead of boxes in references to tune on
    test_references_that_cannot_be_tuned_on
an improvement in the web page that fails, takes over 30 minutes
    test_what_ends_it
    test_what_goes_wrong_is_told
boxes changed in the web page while, or after, their prompts are improved
    test_what_comes_of_it
    test_improving
a prompt bank of other classes than those trained on, in mmdet's own inference
    test_names_are_those_of_the_bank_in_force
    test_one_dict_has_the_names_in_force
no prompts in mmdet's own inference
    test_without_prompts_the_remedy_is_named
    test_a_bank_named_in_the_config_serves_all_who_take_a_config
mmdet's `init_detector` or `DetInferencer` where the data is not
    test_no_data_need_be_there
    test_lazy_dataset_without_its_file_names_no_class_rather_than_a_wrong_one
pictures of one name in several folders, with `--show-dir`
    test_pictures_of_one_name_in_several_folders_are_all_kept
    test_mim_test_writes_predictions_and_pictures
pictures whose names OpenCV cannot write (no suffix, `.jfif`), with `--show-dir`
    test_names_that_cannot_be_written_get_a_suffix
mmdet's `analyze_results`
    test_analyze_results
mmdet's `get_flops`, which knows no prompts
    test_get_flops_with_or_without_prompts
"""
HELD = [row.splitlines() for row in re.split(r'\n(?=\S)', HELD_BY.strip())]


def test_the_rows_are_those_of_the_page():
    page = (ROOT / 'docs' / 'bad_input.md').read_text(encoding='utf-8')
    lines = [line for line in page.splitlines() if line.startswith('|')]
    rows = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines]
    rows = [row for row in rows if row[0] != 'what is wrong' and not set(row[0]) <= set('- ')]
    assert len(rows) == len(HELD)
    for row, (begin, *_) in zip(rows, HELD, strict=True):
        assert len(row) == 2 and row[1]
        assert row[0].startswith(begin)


def test_each_row_has_tests_that_exist():
    sources = [path.read_text(encoding='utf-8') for path in (ROOT / 'tests').rglob('test_*.py')]
    exist = set(re.findall(r'^ *def (test_\w+)', '\n'.join(sources), re.M))
    for begin, *tests in HELD:
        assert tests and {test.strip() for test in tests} <= exist, begin
