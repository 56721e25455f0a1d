from mmdet_dino_r1.lab.benchmark import imports


def test_each_case_in_a_new_interpreter(monkeypatch, tmp_path):
    log = tmp_path / 'log.txt'
    for name in ('light', 'heavy', 'package'):
        (tmp_path / f'{name}_module.py').write_text(
            f"open(r'{log}', 'a').write('{name} ')\n"
            + ('import time; time.sleep(0.05)\n' if name == 'package' else '')
        )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    cases = {'one': ('light_module',), 'both': ('light_module', 'heavy_module')}
    monkeypatch.setattr(imports, 'IMPORTED_BEFORE', cases)
    figures = imports.import_figures(rounds=1, package='package_module')
    one, both = 'light package ', 'light heavy package '
    assert log.read_text() == one + both + both + one
    assert figures.keys() == cases.keys()
    assert all(of['added'] >= 0.05 and of['before'] > 0 for of in figures.values())
