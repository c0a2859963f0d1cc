"""The words of the tab, English and Chinese, in LlamaBoard's own form: name -> language -> properties.

LlamaBoard speaks five languages; in the others the tab is English.
"""

from typing import Any

LABELS: dict[str, dict[str, dict[str, Any]]] = {
    "step_prepare": {"en": {"label": "1 · Prepare"}, "zh": {"label": "1 · 准备数据"}},
    "step_train": {"en": {"label": "2 · Train"}, "zh": {"label": "2 · 训练"}},
    "step_measure": {"en": {"label": "3 · Measure"}, "zh": {"label": "3 · 评测"}},
    "step_compare": {"en": {"label": "4 · Compare"}, "zh": {"label": "4 · 对比"}},
    "recipe": {
        "en": {"label": "Recipe", "info": "A shipped one, or one of your own folder."},
        "zh": {"label": "配方", "info": "自带的配方，或您文件夹中的配方。"},
    },
    "folder": {
        "en": {"label": "Your folder", "info": "Its .yaml files are listed too."},
        "zh": {"label": "您的文件夹", "info": "其中的 .yaml 文件也会列出。"},
    },
    "file": {
        "en": {"label": "Save as", "info": "A .yaml file."},
        "zh": {"label": "另存为", "info": "一个 .yaml 文件。"},
    },
    "save": {"en": {"value": "Save"}, "zh": {"value": "保存"}},
    "code": {"en": {"label": "Recipe (YAML)"}, "zh": {"label": "配方（YAML）"}},
    "fields": {"en": {"label": "The keys people change"}, "zh": {"label": "常用参数"}},
    "dry_run": {"en": {"value": "Dry run"}, "zh": {"value": "试运行"}},
    "start": {"en": {"value": "Start"}, "zh": {"value": "开始"}},
    "stop": {"en": {"value": "Stop"}, "zh": {"value": "停止"}},
    "runs": {
        "en": {"label": "Runs", "info": "They go on when this page is closed."},
        "zh": {"label": "任务", "info": "关闭页面后任务继续运行。"},
    },
    "log": {"en": {"label": "Log"}, "zh": {"label": "日志"}},
    "report": {"en": {"label": "Report"}, "zh": {"label": "报告"}},
    "train_on": {"en": {"value": "Train on these"}, "zh": {"value": "用这些数据训练"}},
    "sets": {
        "en": {"label": "Prepared sets", "info": "A transfer set, and the system to train."},
        "zh": {"label": "已准备的数据集", "info": "选择数据集及训练方法。"},
    },
    "dataset_dir": {
        "en": {"label": "Data dir", "info": "The folder of dataset_info.json."},
        "zh": {"label": "数据路径", "info": "dataset_info.json 所在的文件夹。"},
    },
    "fill": {"en": {"value": "Fill the Train tab"}, "zh": {"value": "填入训练页"}},
    "training": {
        "en": {"label": "Training", "info": "The loss of each subset, as it is logged."},
        "zh": {"label": "训练任务", "info": "各子集的损失曲线。"},
    },
    "refresh": {"en": {"value": "Refresh"}, "zh": {"value": "刷新"}},
    "checkpoint": {
        "en": {"label": "Checkpoint", "info": "A model or an adapter; it goes into the recipe."},
        "zh": {"label": "检查点", "info": "模型或适配器，将写入配方。"},
    },
    "evaluations": {
        "en": {"label": "Evaluations", "info": "The first is the base; the others are compared with it."},
        "zh": {"label": "评测结果", "info": "第一个为基线，其余与之比较。"},
    },
    "train_log": {
        "en": {"label": "Training log", "info": "For the loss curves; may stay empty."},
        "zh": {"label": "训练日志", "info": "用于损失曲线，可留空。"},
    },
    "paper": {
        "en": {"label": "The paper's figures", "info": "Beside yours; may stay empty."},
        "zh": {"label": "论文数据", "info": "与您的结果并列，可留空。"},
    },
    "holm": {
        "en": {"label": "Correct for many tests (Holm)"},
        "zh": {"label": "多重检验校正（Holm）"},
    },
    "compare": {"en": {"value": "Compare"}, "zh": {"value": "对比"}},
    "download_html": {"en": {"label": "Report (HTML)"}, "zh": {"label": "报告（HTML）"}},
    "download_tex": {"en": {"label": "LaTeX"}, "zh": {"label": "LaTeX"}},
    "download_md": {"en": {"label": "Markdown"}, "zh": {"label": "Markdown"}},
    "download_csv": {"en": {"label": "CSV"}, "zh": {"label": "CSV"}},
    # The ten keys
    "name": {"en": {"label": "Name"}, "zh": {"label": "名称"}},
    "instructions": {"en": {"label": "Instructions"}, "zh": {"label": "指令数据"}},
    "target_lang": {"en": {"label": "Target language"}, "zh": {"label": "目标语言"}},
    "max_samples": {"en": {"label": "Records at most"}, "zh": {"label": "最多记录数"}},
    "systems": {"en": {"label": "Systems"}, "zh": {"label": "方法"}},
    "generator.model": {"en": {"label": "Model"}, "zh": {"label": "模型"}},
    "generator.template": {"en": {"label": "Chat template"}, "zh": {"label": "对话模板"}},
    "translator.backend": {"en": {"label": "Translator"}, "zh": {"label": "翻译器"}},
    "quality.backend": {"en": {"label": "Quality estimate"}, "zh": {"label": "质量评估"}},
    "code_switch.dictionary": {"en": {"label": "Dictionary"}, "zh": {"label": "词典"}},
}

WORDS: dict[str, dict[str, str]] = {
    "running": {"en": "at work", "zh": "运行中"},
    "finished": {"en": "finished", "zh": "已完成"},
    "failed": {"en": "failed", "zh": "失败"},
    "stopped": {"en": "stopped", "zh": "已停止"},
    "lost": {"en": "lost: it ended without a word", "zh": "异常中断"},
    "no_run": {"en": "Nothing was started yet.", "zh": "尚未启动任务。"},
    "starting": {"en": "starting", "zh": "正在启动"},
    "good": {"en": "No mistakes.", "zh": "没有错误。"},
    "line": {"en": "line {n}", "zh": "第 {n} 行"},
    "saved": {"en": "Saved: {file}", "zh": "已保存：{file}"},
    "filled": {
        "en": "The Train tab has {n} data sets: choose the model there, and start.",
        "zh": "训练页已填入 {n} 个数据集：请在训练页选择模型并开始。",
    },
    "no_sets": {"en": "No prepared sets here; step 1 makes them.", "zh": "没有数据集，请先完成步骤 1。"},
    "no_training": {"en": "No training has written a log yet.", "zh": "尚无训练日志。"},
    "two_runs": {"en": "Choose two evaluations or more.", "zh": "请选择至少两个评测结果。"},
    "no_recipe": {"en": "Choose a recipe.", "zh": "请选择配方。"},
    "score": {"en": "score", "zh": "指标"},
    "language": {"en": "language", "zh": "语言"},
    "value": {"en": "value", "zh": "数值"},
    "interval": {"en": "95% interval", "zh": "95% 区间"},
    "unmeasured": {"en": "no scores yet", "zh": "尚无结果"},
}


def label(name: str, lang: str | None = None) -> dict[str, Any]:
    """The properties of a component."""
    words = LABELS[name]
    return words.get(lang or "en", words["en"])


def word(name: str, lang: str | None = None, **values: object) -> str:
    """A word or a sentence, with its values in it."""
    words = WORDS[name]
    return words.get(lang or "en", words["en"]).format(**values)
