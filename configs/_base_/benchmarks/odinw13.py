# ODinW13: the 13 sets of ODinW that GLIP reported on.
_base_ = './odinw35.py'

test_dataloader = dict(
    dataset=dict(
        only=[
            'AerialMaritimeDrone_large',
            'Aquarium',
            'CottontailRabbits',
            'EgoHands_generic',
            'NorthAmericaMushrooms',
            'Packages',
            'PascalVOC',
            'pistols',
            'pothole',
            'Raccoons',
            'ShellfishOpenImages',
            'thermalDogsAndPeople',
            'VehiclesOpenImages',
        ]
    )
)
