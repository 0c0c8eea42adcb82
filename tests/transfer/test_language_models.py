"""Language-conditioned detectors: language models of folders, and nothing from any hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from dap.transfer import category_dependent_parameters, extract_detector
from dap.transfer.language_models import with_local_language_models
from tests.support.tiny_detectors import MMDET_CONFIGS, build, mark, save_mmengine, tiny_model

CONFIGS = {
    "glip": "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py",
    "grounding-dino": "grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py",
    "mm-grounding-dino": "mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py",
}


class Asked:
    """Stands in for all that mmdet imports of transformers, and notes what it is asked for."""

    def __init__(self):
        self.names = []
        self.hidden_size = 12

    def from_pretrained(self, name, **_):
        self.names.append(name)
        return self

    def convert_tokens_to_ids(self, tokens):
        return list(range(len(tokens)))


class AskedModule(Asked, torch.nn.Module):
    """The same for what becomes a part of the detector."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        Asked.__init__(self)


@pytest.fixture
def asked(monkeypatch):
    from mmdet.models.dense_heads import atss_vlfusion_head
    from mmdet.models.language_models import bert

    tokenizer, model = Asked(), AskedModule()
    for module in (bert, atss_vlfusion_head):
        monkeypatch.setattr(module, "BertConfig", tokenizer, raising=False)
    monkeypatch.setattr(bert, "AutoTokenizer", tokenizer)
    monkeypatch.setattr(bert, "HFBertModel", model)
    return lambda: [*tokenizer.names, *model.names]


def model_of(name):
    return Config.fromfile(MMDET_CONFIGS / CONFIGS[name]).model


@pytest.mark.parametrize("name", CONFIGS)
def test_language_model_that_is_not_at_hand_is_refused_and_not_asked_for(asked, name):
    with pytest.raises(ValueError, match=r"by 'bert-base-uncased', which is neither a folder"):
        category_dependent_parameters(model_of(name))

    assert asked() == []


@pytest.mark.parametrize("name", CONFIGS)
def test_language_model_in_a_folder_is_read_from_there(asked, tmp_path, name):
    model_cfg = model_of(name)
    model_cfg.language_model.name = str(tmp_path)
    if "encoder" in model_cfg:
        model_cfg.encoder.num_cp = 0  # asks for fairscale
    if name == "glip":
        model_cfg.bbox_head.lang_model_name = str(tmp_path)

    names = category_dependent_parameters(model_cfg)

    # GLIP compares with words, so that no layer depends on the categories
    expected = set() if name == "glip" else {"dn_query_generator.label_embedding.weight"}
    assert names == expected
    assert set(asked()) == {str(tmp_path)}


def test_head_with_mmdets_default_name_is_refused_too(asked, tmp_path):
    model_cfg = model_of("glip")
    model_cfg.language_model.name = str(tmp_path)
    del model_cfg.bbox_head["lang_model_name"]

    with pytest.raises(ValueError, match="bert-base-uncased"):
        category_dependent_parameters(model_cfg)

    assert asked() == []


def test_extracting_ends_in_one_sentence(tmp_path):
    model_cfg = model_of("glip")
    path = save_mmengine(tmp_path / "glip.pth", mark(build(tiny_model("retinanet", 3))), model_cfg)

    with pytest.raises(ValueError, match=r"glip\.pth: .*conditioned on language") as error:
        extract_detector(path, tmp_path / "out")

    assert "\n" not in str(error.value)


def test_name_in_the_cache_becomes_its_folder(tmp_path):
    """In the layout of Hugging Face's cache, by a process of its own: it reads HF_HOME once."""
    model = tmp_path / "hub/models--bert-base-uncased"
    snapshot = model / "snapshots/0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (model / "refs").mkdir()
    (model / "refs/main").write_text(snapshot.name)
    pytest.importorskip("huggingface_hub")
    code = (
        "from dap.transfer.language_models import with_local_language_models as f;"
        "print(f({'a': [{'type': 'BertModel'}]})['a'][0]['name'])"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)

    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.split()[-1]) == snapshot


def test_configs_without_language_stay_as_they_are():
    model_cfg = tiny_model("faster-rcnn", 3)

    assert with_local_language_models(model_cfg) == model_cfg
