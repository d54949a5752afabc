#!/usr/bin/env python3
"""Write tasks.json, the table of mteb's tasks that hbt knows: `table.rs` reads it.

Needs mteb and langcodes, no network. Run with Python 3.11, mteb 2.26.24, langcodes 3.5.1:

    python3 make_tasks.py tasks.json

One object. `mteb`: the version. `languages`: by ISO 639-1 code, and by ISO 639-3 code of a macrolanguage, the ISO 639-3 codes
of the table that it stands for (IANA's language subtag registry). `benchmarks`: by name, aliases, all tasks with their
types, and the subsets of tasks of which a benchmark takes some. `tasks`, one a line, by name:

    type, path, revision, main_score
    splits       names, divided by spaces
    subsets      names, divided by spaces; or `pairs`: every ordered pair A-B of these, sorted by A, then B, as they stand
    codes        languages of a subset, or of a part of its name between `-`; a part that is not there has its own, `_` for `-`
    k_values, ignore_identical_ids, columns, score_range    where they are not the usual ones
    prompt       text, or texts for `query` and `document`
    loading      absent: mteb's ordinary loader. lang_column: one table, whose column `lang` names the subset. parallel: one
                 table with a column for each language. own: code of the task
    counts       by split, sums over subsets, as mteb's statistics have them: [queries, documents], or one number: of pairs,
                 or of queries and documents together

Prints the checksum of all subsets and their languages, which a test of table.rs compares with what it reads.
"""
import argparse
import importlib.resources
import itertools
import json
import os
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import langcodes.registry_parser
import mteb
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.get_tasks import _TASKS_REGISTRY as CLASSES
from mteb.languages.iso_mappings import _get_iso1_to_iso3

TYPES = ["Retrieval", "Reranking", "InstructionReranking", "BitextMining", "STS", "PairClassification"]
BENCHMARKS = ["MTEB(Multilingual, v2)", "MTEB(eng, v2)", "NanoBEIR-multilingual"]
MORE = """
    BelebeleRetrieval CrossLingualSemanticDiscriminationWMT19 CrossLingualSemanticDiscriminationWMT21 CUREv1 IndicQARetrieval
    MintakaRetrieval MIRACLReranking MIRACLRetrieval MIRACLRetrievalHardNegatives MIRACLRetrievalHardNegatives.v2
    MKQARetrieval MLQARetrieval MMarcoRetrievalMultilingual MrTidyRetrieval MultiLongDocRetrieval NeuCLIR2022Retrieval
    NeuCLIR2022RetrievalHardNegatives NeuCLIR2023Retrieval NeuCLIR2023RetrievalHardNegatives PublicHealthQA WebFAQRetrieval
    XMarket XPQARetrieval XQuADRetrieval
""".split()
# Their own code only renames these columns.
RENAMED = {name: ["sent1", "sent2"] for name in ["SprintDuplicateQuestions", "TwitterSemEval2015", "TwitterURLCorpus"]}
# Its own code reads the ordinary layout, whose documents are in a split of another name.
ORDINARY = ["MrTidyRetrieval"]


def is_own(task, method):
    """Whether the class of a task, and not one of mteb's base classes, defines the method."""
    definer = next(c for c in task.__mro__ if method in vars(c))
    return not definer.__module__.startswith("mteb.abstasks")


def loading(task):
    if getattr(task, "parallel_subsets", False):
        return "parallel"
    if task.metadata.name not in [*RENAMED, *ORDINARY] and any(is_own(task, m) for m in ["load_data", "dataset_transform"]):
        return "own"
    return "lang_column" if task.fast_loading else None


def languages_of(name, codes):
    """Languages of a subset, as table.rs finds them."""
    if name in codes:
        return codes[name].split()
    return [codes.get(part, part.replace("_", "-")) for part in name.split("-")]


def subsets(task):
    """The keys `subsets` or `pairs`, and `codes`."""
    known = {name: list(languages) for name, languages in task.metadata.hf_subsets_to_langscripts.items()}
    codes = {}
    for name, languages in known.items():
        parts = name.split("-")
        fits = len(parts) == len(languages) and all(codes.get(p, l) == l for p, l in zip(parts, languages))
        codes |= zip(parts, languages) if fits else [(name, " ".join(languages))]
    codes = {part: code for part, code in codes.items() if code != part.replace("_", "-")}
    assert {name: languages_of(name, codes) for name in known} == known, task.metadata.name
    assert not any(" " in name for name in known)
    firsts = list(dict.fromkeys(name.split("-")[0] for name in known))
    is_all = len(firsts) > 9 and [f"{a}-{b}" for a, b in itertools.permutations(firsts, 2)] == list(known)
    found = {"pairs": " ".join(firsts)} if is_all else {"subsets": " ".join(known)}
    return found | ({"codes": codes} if codes else {}), known


def counts(metadata):
    """By split, [queries, documents], or one number where mteb has no more."""
    file = importlib.resources.files("mteb") / "descriptive_stats" / metadata.type / f"{metadata.name}.json"
    if not file.is_file():
        return {}
    found = {}
    for split, statistics in json.loads(file.read_text(encoding="utf-8")).items():
        both = [statistics.get("num_queries"), statistics.get("num_documents")]
        found[split] = both if None not in both else [statistics["num_samples"]]
    return found


def row(name):
    task = CLASSES[name]
    metadata = task.metadata
    found = {"type": metadata.type, "path": metadata.dataset["path"], "revision": metadata.dataset["revision"]}
    found |= {"main_score": metadata.main_score, "splits": " ".join(metadata.eval_splits)}
    names, known = subsets(task)
    found |= names
    if issubclass(task, AbsTaskRetrieval):
        if tuple(task.k_values) != AbsTaskRetrieval.k_values:
            found["k_values"] = list(task.k_values)
        if task.ignore_identical_ids:
            found["ignore_identical_ids"] = True
        assert not task.skip_first_result, name
    if issubclass(task, AbsTaskSTS):
        assert tuple(task.column_names) == ("sentence1", "sentence2"), name
        if [task.min_score, task.max_score] != [0, 5]:
            found["score_range"] = [task.min_score, task.max_score]
    if issubclass(task, AbsTaskPairClassification):
        columns = [task.input1_column_name, task.input2_column_name, task.label_column_name]
        assert columns == ["sentence1", "sentence2", "labels"], name
        if name in RENAMED:
            found["columns"] = RENAMED[name]
    if metadata.prompt is not None:
        found["prompt"] = metadata.prompt
    if loading(task):
        found["loading"] = loading(task)
    if counts(metadata):
        found["counts"] = counts(metadata)
    return found, known


def languages(codes):
    """By the code that one may ask for, the ISO 639-3 codes among `codes` that it stands for."""
    to_3 = _get_iso1_to_iso3()
    to_1 = {three: one for one, three in to_3.items()}
    entries = langcodes.registry_parser.parse_registry()
    parents = {e["Subtag"]: e["Macrolanguage"] for e in entries if e["Type"] == "language" and "Macrolanguage" in e}
    found = {}
    for code in sorted(codes):
        one = to_1.get(code, code)
        asked = {one, parents.get(one), to_3.get(parents.get(one), parents.get(one))} - {None, code}
        # What is a macrolanguage's code names it too: `zho` is Chinese of whatever kind, and a subset may say no more.
        if code in {to_3.get(parent, parent) for parent in parents.values()}:
            asked.add(code)
        for key in asked:
            found.setdefault(key, []).append(code)
    return {key: " ".join(found[key]) for key in sorted(found) if found[key] != [key]}


def benchmark(name):
    known = mteb.get_benchmark(name)
    some = {}
    for task in (task for task in known.tasks if task.metadata.type in TYPES):
        whole = CLASSES[task.metadata.name].metadata
        assert list(task.eval_splits) == list(whole.eval_splits), whole.name
        if list(task.hf_subsets) != list(whole.hf_subsets):
            some[whole.name] = " ".join(task.hf_subsets)
    found = {"aliases": list(known.aliases), "tasks": {t.metadata.name: t.metadata.type for t in known.tasks}}
    return found | ({"subsets": some} if some else {})


def lines(rows):
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in rows.items()) + "\n}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write")
    out = parser.parse_args().out
    benchmarks = {name: benchmark(name) for name in BENCHMARKS}
    of_benchmarks = [name for b in benchmarks.values() for name, type_ in b["tasks"].items() if type_ in TYPES]
    names = sorted({*of_benchmarks, *MORE}, key=str.lower)
    rows = {name: row(name) for name in names}
    tasks = {name: found for name, (found, _) in rows.items()}
    # The table's own check: what is read from it.
    subset_lines = [
        f"{task} {name} {' '.join(of)}\n" for task, (_, known) in rows.items() for name, of in known.items()
    ]
    codes = {code.split("-")[0] for _, known in rows.values() for of in known.values() for code in of}
    parts = {"mteb": json.dumps(mteb.__version__), "languages": lines(languages(codes))}
    parts |= {"benchmarks": lines(benchmarks), "tasks": lines(tasks)}
    out.write_text("{\n" + ",\n".join(f'"{k}": {v}' for k, v in parts.items()) + "\n}\n", encoding="utf-8")
    checksum = zlib.crc32("".join(subset_lines).encode())
    print(f"{len(tasks)} tasks, {len(subset_lines)} subsets, CRC-32 of the subsets {checksum:#010x}")


if __name__ == "__main__":
    main()
