from looper.cli.served import served_models


def test_what_plays_is_what_the_environment_names_and_what_is_missing_names_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOPER_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("LOOPER_MODELS", "medium=tiny")
    models = served_models()
    assert (models["medium"].here, models["medium"].model, models["medium"].demo) == (True, "tiny", True)
    assert not models["large"].here and "looper weights get large" in models["large"].remedy
    assert "folder" not in models["medium"].told()
