# make setup     the environment, in .venv         make demo   train and test on a drawn data set
# make test      the quick tests, six minutes      make lint   ruff, codespell and mypy
# make test-all  these, then the slow ones         make clean  build leftovers away
# make format    what ruff can put right
# make test-openmmlab   OpenMMLab's packages in .venv-openmmlab, and the tests that differ by them
# make test-torch21     the same with PyTorch 2.1 and NumPy 1 in .venv-torch21 (2 GB of downloads)
#
# What can be overridden, for instance a GPU build of torch under another Python:
#   make setup PYTHON=python3.12 TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
# One of the two families of mm* packages: requirements/mminstall{,-openmmlab}.txt
MM     ?= requirements/mminstall.txt
# Where a ready mmcv wheel may be: a folder, or a page of links; docs/install.md lists pages. Else
# mmcv's operators are compiled, about a quarter of an hour on two cores, and their wheel is kept.
WHEELS     ?= ../shared/wheels
MMCV_INDEX ?= $(wildcard $(WHEELS))
# Tests at once; each worker keeps to one thread.
JOBS   ?= 2
# More arguments for pytest.
ARGS   ?=
# The environment of the other family, and what is tested in it: what mmengine, mmcv and mmdet do for
# us (configs, training, resuming, checkpoints, mim), and the model beside mmdet's own.
VENV_OPENMMLAB ?= .venv-openmmlab
TESTS_OPENMMLAB = tests/test_utils tests/test_registry.py \
  tests/test_configs.py $(wildcard tests/test_engine/test_r*.py) \
  tests/test_engine/test_hooks/test_reference_model_hook.py tests/test_install/test_mim.py \
  tests/test_models/test_detectors/test_warm_start.py tests/test_tools/test_study.py \
  tests/test_models/test_detectors/test_parity.py tests/test_apis/test_mmdet_inference.py \
  tests/test_models/test_detectors/test_pet_dino_parity.py tests/test_pet_dino_weights.py \
  tests/test_models/test_detectors/test_pet_dino_full_size.py \
  tests/test_evaluation/test_coco_json_metric.py tests/test_apis/test_image_list.py

# The environment of most people with OpenMMLab's packages, and what asks most of PyTorch besides:
# the model, its training alone and by two processes, mixed precision, banks, inferencer, export.
VENV_TORCH21 ?= .venv-torch21
TESTS_TORCH21 = $(TESTS_OPENMMLAB) tests/test_models tests/test_engine tests/test_distributed \
  tests/test_apis tests/test_device_path tests/test_install/test_wheel.py \
  tests/test_checks/test_image_check.py

BIN    = $(VENV)/bin
PY     = $(BIN)/python
PIP    = $(PY) -m pip --disable-pip-version-check
MIM    = $(BIN)/mim
DEMO  := work_dirs/demo
# Threads of torch that wait for each other spin; beside any other load on the same cores a step was
# seen to take ten times as long. Spinning only briefly costs nothing on an idle machine.
export GOMP_SPINCOUNT ?= 10000

.PHONY: help setup demo test test-all test-openmmlab test-torch21 lint format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^PYTHON/q' Makefile

setup: $(VENV)/.setup-done

# Each step says what it does. The order is a chain of needs: torch before mmcv, which compiles
# against it; build tools before mmcv, which is built without pip's isolation (with it there is no
# torch in sight and the operators are left out without a word).
$(VENV)/.setup-done: $(wildcard requirements/*.txt) setup.py pyproject.toml
	@echo "== setup 1/6: environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.10, 3.11 or 3.12; name one: make setup PYTHON=python3.11"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "== setup 2/6: $(TORCH)"
	$(PIP) install $(TORCH)
	@echo "== setup 3/6: $(MM) (where no ready wheel of mmcv fits, it is compiled)"
	$(PIP) install 'setuptools>=70,<80' wheel ninja psutil packaging
	sh requirements/install_mm.sh $(PY) $(MM) $(MMCV_INDEX)
	@echo "== setup 4/6: openmim, without opendatalab, which pip will remark on and nothing here needs"
	$(PIP) install --no-deps openmim==0.3.9
	$(PIP) install -r requirements/mim.txt
	@echo "== setup 5/6: this package, editable, and what its tests need"
	$(PIP) install --no-build-isolation -e . -r requirements/tests.txt
	@echo "== setup 6/6: checks"
# opencv-python needs libGL, which servers lack; the headless build has the same modules. Both are
# dependencies and share one folder, so the wanted one is installed again once the other is gone.
	@$(PY) -c 'import cv2' || { \
	  echo "== no libGL here: opencv-python gives way to opencv-python-headless"; \
	  version=$$($(PY) -c 'from importlib.metadata import version; print(version("opencv-python"))'); \
	  $(PIP) uninstall -y opencv-python && \
	  $(PIP) install --no-deps --force-reinstall opencv-python-headless==$$version; }
	$(PY) -c 'import torch, mmcv._ext'
	$(PY) -c 'import mmdet_dino_r1; print("mmdet_dino_r1", mmdet_dino_r1.__version__, "is ready")'
	@touch $@

# Every step can be run again by itself; the data are drawn only once.
demo: setup
	@printf '\n== demo 1/5: draw the shapes set\n'
	$(MIM) run mmdet_dino_r1 generate_shapes data/shapes
	@printf '\n== demo 2/5: train on the base classes\n'
	$(MIM) train mmdet_dino_r1 configs/dino_r1_r18_shapes.py --work-dir $(DEMO)
	@printf '\n== demo 3/5: test on the base classes\n'
	$(MIM) test mmdet_dino_r1 configs/dino_r1_r18_shapes.py --work-dir $(DEMO)/base \
	  --checkpoint "$$(cat $(DEMO)/last_checkpoint)" \
	  --cfg-options test_evaluator.outfile_prefix=$(DEMO)/base/results
	@printf '\n== demo 4/5: test on classes never trained on, from prompts alone\n'
	$(MIM) test mmdet_dino_r1 configs/dino_r1_r18_shapes_novel.py --work-dir $(DEMO)/novel \
	  --checkpoint "$$(cat $(DEMO)/last_checkpoint)" \
	  --cfg-options test_evaluator.outfile_prefix=$(DEMO)/novel/results
	@printf '\n== demo 5/5: report\n'
	$(MIM) run mmdet_dino_r1 demo_report $(DEMO)

PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadscope

test: setup
	$(PYTEST) -m 'not slow and not ddp' $(ARGS)

# Two packages that nothing but their tests needs. SAHI asks for an OpenCV of its own.
test-all: test
	$(PIP) install 'ray[data]==2.60.0'
	$(PIP) install --no-deps sahi==0.12.8
	$(PYTEST) -m 'slow or ddp' $(ARGS)

test-openmmlab: VENV = $(VENV_OPENMMLAB)
test-openmmlab:
	$(MAKE) setup MM=requirements/mminstall-openmmlab.txt VENV="$(VENV)"
	$(PYTEST) $(TESTS_OPENMMLAB) $(ARGS)

# ready-made wheels for this torch lie in a folder of their own: they bear the same name
test-torch21: VENV = $(VENV_TORCH21)
test-torch21:
	PIP_CONSTRAINT=requirements/constraints-torch21.txt $(MAKE) setup TORCH=torch==2.1.2 \
	  MM=requirements/mminstall-openmmlab.txt VENV="$(VENV)" WHEELS="$(WHEELS)/torch21"
	$(PYTEST) $(TESTS_TORCH21) $(ARGS)

lint: $(VENV)/.lint-done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

format: $(VENV)/.lint-done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.lint-done: requirements/dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(shell grep -E '^(ruff|codespell|mypy)==' requirements/dev.txt)
	@touch $@

# Leaves data/, work_dirs/ and the environment; .mim belongs to the editable install.
clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
