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
the same, among the exemplars of a prompt bank
    test_missing_and_unreadable_images_are_named
the same, in inference
    test_broken_images_are_named_and_the_others_go_on
a step of the pipeline fails on one image
    test_a_step_that_fails_on_an_image_names_it
image files are missing
    test_missing
    test_missing_and_unreadable_images_are_named
an image of another size than annotated
    test_broken_and_of_another_size
    test_image_of_another_size_than_annotated
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
    test_boxes_that_are_not_four_numbers_are_named
unusable boxes drawn for inference
    test_unusable_boxes_are_named
a category id that the file does not list
    test_unknown_category
    test_training_goes_on_without_the_boxes_that_are_none
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
no image, or none that `filter_cfg` keeps
    test_sets_without_images_are_named
no annotation, or none that can be used
    test_no_boxes_at_all
    test_batch_without_boxes_teaches_nothing
a category without a box in the training set
    test_without_a_box
a tested class without any box among the exemplars
    test_a_class_without
    test_missing_classes_are_named
    test_classes_without_a_box_may_be_skipped
annotations, images or categories without a key
    test_keys_of_annotations
    test_entries_without_a_key_are_named
    test_annotation_without_a_key_or_of_an_unknown_image_is_named
annotation ids that repeat, annotations of images that are not listed
    test_repeated_annotation_id
    test_unknown_image_matters_to_prompts
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
no internet, a proxy or a wrong address where weights are a URL
    test_weights_that_cannot_be_fetched
    test_what_cannot_be_fetched_is_named
    test_what_the_checkpoint_has_is_left_out_of_the_initialisation
a download that is cut short, or a proxy's page in its place
    test_what_came_instead_of_a_checkpoint_is_named
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
the bare name of a shipped config
    test_a_bare_name_becomes_the_path
`query_view --device` that is not there
    test_what_is_wrong_is_said
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
