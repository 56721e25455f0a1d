# ODinW35: 35 small sets, each with its own classes and with prompts from its own train split.
_base_ = './test_only.py'
data_root = 'data/odinw/'

# folder of each set; the names are those of mmdet's ODinW35 config
folders = {
    'AerialMaritimeDrone_large': 'AerialMaritimeDrone/large',
    'AerialMaritimeDrone_tiled': 'AerialMaritimeDrone/tiled',
    'AmericanSignLanguageLetters': (
        'AmericanSignLanguageLetters/American Sign Language Letters.v1-v1.coco'
    ),
    'Aquarium': 'Aquarium/Aquarium Combined.v2-raw-1024.coco',
    'BCCD': 'BCCD/BCCD.v3-raw.coco',
    'boggleBoards': 'boggleBoards/416x416AutoOrient/export',
    'brackishUnderwater': 'brackishUnderwater/960x540',
    'ChessPieces': 'ChessPieces/Chess Pieces.v23-raw.coco',
    'CottontailRabbits': 'CottontailRabbits',
    'dice': 'dice/mediumColor/export',
    'DroneControl': 'DroneControl/Drone Control.v3-raw.coco',
    'EgoHands_generic': 'EgoHands/generic',
    'EgoHands_specific': 'EgoHands/specific',
    'HardHatWorkers': 'HardHatWorkers/raw',
    'MaskWearing': 'MaskWearing/raw',
    'MountainDewCommercial': 'MountainDewCommercial',
    'NorthAmericaMushrooms': 'NorthAmericaMushrooms/North American Mushrooms.v1-416x416.coco',
    'openPoetryVision': 'openPoetryVision/512x512',
    'OxfordPets_by_breed': 'OxfordPets/by-breed',
    'OxfordPets_by_species': 'OxfordPets/by-species',
    'PKLot': 'PKLot/640',
    'Packages': 'Packages/Raw',
    'PascalVOC': 'PascalVOC',
    'pistols': 'pistols/export',
    'plantdoc': 'plantdoc/416x416',
    'pothole': 'pothole',
    'Raccoons': 'Raccoon/Raccoon.v2-raw.coco',
    'selfdrivingCar': 'selfdrivingCar/fixedLarge/export',
    'ShellfishOpenImages': 'ShellfishOpenImages/raw',
    'ThermalCheetah': 'ThermalCheetah',
    'thermalDogsAndPeople': 'thermalDogsAndPeople',
    'UnoCards': 'UnoCards/raw',
    'VehiclesOpenImages': 'VehiclesOpenImages/416x416',
    'WildfireSmoke': 'WildfireSmoke',
    'websiteScreenshots': 'websiteScreenshots',
}
# PET-DINO's lists of exemplars (default_hooks.prompt_bank.bank.support=FOLDER) have the names of
# the sets, but these:
lists = {
    'AerialMaritimeDrone_large': 'AerialMaritimeDrone',
    'EgoHands_generic': 'EgoHands',
    'Raccoons': 'Raccoon',
}
# A set in `export/` has both splits in one folder, the others have `train/` and `valid/`. The files
# of some sets also exist with other class names (`new_annotations…`), made for text prompts.
# Classes are matched by id: between the splits of some sets their names differ.
test_dataloader = dict(
    dataset=dict(
        type='DatasetGroup',
        only=None,  # names of the sets to test; None: all
        skip_missing=False,  # True: leave out sets that are not there, and say so
        common=dict(type='CocoJsonDataset', test_mode=True, pipeline=_base_.test_pipeline),
        datasets={
            name: dict(
                data_root=f'{data_root}{folder}/',
                ann_file=f'{val}annotations_without_background.json',
                data_prefix=dict(img='' if val == 'val_' else val),
                prompts=dict(
                    ann_file=f'{train}annotations_without_background.json',
                    data_prefix=dict(img='' if train == 'train_' else train),
                    match='id',
                    support=f'{lists.get(name, name)}_train_odvg_16.json',
                ),
            )
            for name, folder in folders.items()
            for train, val in (
                [('train_', 'val_')] if folder.endswith('/export') else [('train/', 'valid/')]
            )
        },
    )
)
test_evaluator = dict(
    type='DatasetGroupEvaluator', metrics=dict(type='CocoJsonMetric', metric='bbox')
)
default_hooks = dict(
    # a class that a train split never shows cannot be prompted; it is named and scores 0
    prompt_bank=dict(bank=dict(skip_missing=True)),
)
