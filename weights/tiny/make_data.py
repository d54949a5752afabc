#!/usr/bin/env python3
"""Writes data/train.jsonl and data/test.jsonl: parallel questions and answers in eight languages.

    python3 make_data.py            # same bytes on every run
    python3 make_data.py --check    # writes nothing; fails if the files on disk differ

The words live in lexicon/*.txt, one file a domain, four kinds of sections:

    [entities]            key | ar | de | en | es | fr | hi | ru | zh
    [values NAME]         the same, for the things that facts point to
    [attribute NAME]      one line a language:  xx: question | question | question || answer | answer | answer
    [facts]               first line the attributes, then  key: value value ...   ('-' = no such fact)

A cell holds inflected forms separated by '/', and '@f' or '@n' where the gender does not show:
de  nominative with article / genitive      (dative and accusative follow)
hi  direct / oblique        ru  nominative / genitive / prepositional        fr  name / "in" phrase
A row 'COUNTRIES | -' among the values says that a fact may name any entity of country.txt. An attribute
without values takes the fact as it is spelled (numbers, codes). A fact 'a+b' is the list "a and b".

In a template {e} is the entity and {v} the value; {eg} {ed} {ea} {eo} {ep} are its genitive, dative,
accusative, oblique and prepositional, {e1} its second form; the same with v. <x~y> is x for
a masculine entity, y for a feminine one; <x~y~z> adds a neuter.

Split: a (entity, attribute) pair is in one split only. Each attribute has three question wordings, of
which the third is asked in test alone, and three answer wordings, of which the second is given in test
alone. The third answer borrows the words of the third question, and the second answer those of the second
question: the test sentences are new, but most of their words were met in training.
"""
import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LANGS = ["ar", "de", "en", "es", "fr", "hi", "ru", "zh"]
SCRIPT = {"ar": "ARABIC", "de": "LATIN", "en": "LATIN", "es": "LATIN", "fr": "LATIN",
          "hi": "DEVANAGARI", "ru": "CYRILLIC", "zh": "CJK"}
AND = {"ar": " و", "de": " und ", "en": " and ", "es": " y ", "fr": " et ", "hi": " और ", "ru": " и ", "zh": "和"}
COMMA = {"ar": " و", "zh": "、"}
TEST_SHARE = 0.19
MIN_TRAIN_PER_ENTITY = 4
MIN_TRAIN_PER_ATTRIBUTE = 8


def rank(*parts):
    """A number that looks random but depends on its arguments alone."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big")


# ---------------------------------------------------------------- words and their forms

GERMAN = {"d": {"der": "dem", "die": "der", "das": "dem"},
          "a": {"der": "den", "die": "die", "das": "das"}}


class Word:
    def __init__(self, lang, cell):
        cell, _, self.gender = cell.strip().partition("@")
        self.lang = lang
        self.forms = cell.split("/") if not cell.startswith("=") else [cell[1:]]
        self.gender = self.gender or self.guess_gender()

    def guess_gender(self):
        first = self.forms[0]
        article = first.split(" ")[0]
        if self.lang == "de":
            return {"die": "f", "das": "n"}.get(article, "m")
        if self.lang in ("fr", "es"):
            return "f" if article == "la" else "m"
        return "f" if self.lang == "ar" and first.endswith("ة") else "m"

    def form(self, case):
        if not case:
            return self.forms[0]
        if case.isdigit():
            return self.forms[int(case)]
        if self.lang == "de":
            return self.german(case)
        position = {"g": 1, "o": 1, "p": 2}[case]
        if self.lang == "hi" and len(self.forms) == 1:
            return self.forms[0]
        return self.forms[position]

    def german(self, case):
        article, _, noun = self.forms[0].partition(" ")
        if article not in ("der", "die", "das"):
            if case != "g":
                return self.forms[0]
            return self.forms[1] if len(self.forms) > 1 else "von " + self.forms[0]
        genitive = self.forms[1] if len(self.forms) > 1 else (
            "der " + noun if article == "die" else f"des {noun}s")
        if case == "g":
            return genitive
        weak = article == "der" and genitive in (f"des {noun}n", f"des {noun}en")
        return GERMAN[case][article] + " " + (genitive[4:] if weak else noun)


def listed(words):
    """The list 'a, b and c' as a word."""
    lang = words[0].lang
    names = [w.forms[0] for w in words]
    joined = COMMA.get(lang, ", ").join(names[:-1]) + AND[lang] + names[-1]
    return Word(lang, joined)


# ---------------------------------------------------------------- templates

VOWEL = "aeiouyâàéèêîôœAEIOUÂÀÉÈÊÎÔŒ"
RULES = {
    "fr": [(r"\b([Dd])e le ", r"\1u "), (r"\b([Dd])e les ", r"\1es "), (r"\bà le ", "au "), (r"\bÀ le ", "Au "),
           (r"\bà les ", "aux "), (rf"\b([Dd]|[Qq]u)e (?=[{VOWEL}])", r"\1'"), (r" ([?!:;])", "\u00a0\\1")],
    "es": [(r"\b([Dd])e el ", r"\1el "), (r"\ba el ", "al "), (r"\bA el ", "Al "), (r" y (?=[iIíÍ]|[Hh][ií])", " e ")],
    "de": [(r"\bvon dem ", "vom "), (r"\bVon dem ", "Vom "), (r"\bin dem ", "im "), (r"\bIn dem ", "Im "),
           (r"\bzu dem ", "zum "), (r"\bzu der ", "zur "), (r"\ban dem ", "am "), (r"\bAn dem ", "Am ")],
    "en": [(r"\b([Aa]) (?=[aeiouAEIO])(?!uni|one|euro|use|uku)", r"\1n ")],
    "ru": [(r"\b([Вв]) (?=[ФВфв][бвгджзклмнпрстфхцчшщ])", r"\1о ")],
    "ar": [(r"(^|[\s(])([وف]?)لال", r"\1\2لل")],
}


def render(lang, template, entity, value):
    def gendered(match):
        masculine, feminine, *neuter = match.group(1).split("~")
        return {"m": masculine, "f": feminine, "n": (neuter or [masculine])[0]}[entity.gender]

    def fill(match):
        word = {"e": entity, "v": value}[match.group(1)]
        return word.form(match.group(2))

    text = re.sub(r"<([^<>]*)>", gendered, template)
    text = re.sub(r"\{([ev])([a-z0-9]?)\}", fill, text)
    for pattern, replacement in RULES.get(lang, []):
        text = re.sub(pattern, replacement, text)
    start = 1 if text[0] in "¿¡" else 0
    return text[:start] + text[start].upper() + text[start + 1:]


# ---------------------------------------------------------------- lexicon files

def cells(line, where):
    key, *rest = [part.strip() for part in line.split(" | ")]
    if len(rest) == 1:
        rest = rest * len(LANGS)
    if len(rest) != len(LANGS):
        raise SystemExit(f"{where}: {key} has {len(rest)} cells")
    return key, {lang: Word(lang, cell) for lang, cell in zip(LANGS, rest)}


class Domain:
    def __init__(self, path):
        self.name = path.stem
        self.entities, self.values, self.attributes, self.facts = {}, {}, {}, []
        section = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line, where = line.strip(), f"{path.name}:{number}"
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                section, _, argument = line.strip("[]").partition(" ")
                columns = None
            elif section == "entities":
                key, words = cells(line, where)
                self.entities[key] = words
            elif section == "values":
                key, words = cells(line, where)
                self.values.setdefault(argument, {})[key] = words
            elif section == "attribute":
                lang, _, wordings = line.partition(":")
                questions, answers = wordings.split(" || ")
                pair = [[t.strip() for t in side.split(" | ")] for side in (questions, answers)]
                if lang not in LANGS or [len(side) for side in pair] != [3, 3]:
                    raise SystemExit(f"{where}: {len(pair[0])} questions, {len(pair[1])} answers, not 3 and 3")
                self.attributes.setdefault(argument, {})[lang] = pair
            elif columns is None:
                columns = line.split()
            else:
                key, _, row = line.partition(":")
                row = row.split()
                if key not in self.entities or len(row) != len(columns):
                    raise SystemExit(f"{where}: {key}: {len(row)} facts for {len(columns)} attributes")
                self.facts += [(key, a, v) for a, v in zip(columns, row) if v != "-"]


def load():
    domains = [Domain(path) for path in sorted((ROOT / "lexicon").glob("*.txt"))]
    countries = next(d for d in domains if d.name == "country").entities
    return domains, countries


def value_words(domain, countries, attribute, spelled):
    """A fact's value as one word a language: from the attribute's own values, a country, or as spelled."""
    known = domain.values.get(attribute)
    if known is None:
        return {lang: Word(lang, "=" + spelled.replace("_", " ")) for lang in LANGS}
    parts = []
    for key in spelled.split("+"):
        found = known.get(key) or (countries.get(key) if "COUNTRIES" in known else None)
        if found is None:
            raise SystemExit(f"{domain.name}: {attribute} has no value {key!r}")
        parts.append(found)
    return parts[0] if len(parts) == 1 else {lang: listed([p[lang] for p in parts]) for lang in LANGS}


# ---------------------------------------------------------------- split and groups

def choose_test(facts):
    """The facts asked in test, as (domain, entity, attribute).

    Entities come in hash order, and one that is chosen gives several facts: so the test passages hold hard
    distractors, other facts of the same entity. Entities and attributes stay well covered in train.
    """
    in_domain = Counter(d for d, _, _ in facts)
    in_entity = Counter((d, e) for d, e, _ in facts)
    in_attribute = Counter((d, a) for d, _, a in facts)
    taken = Counter()
    test = set()
    for fact in sorted(facts, key=lambda f: (rank("entity", *f[:2]), rank("fact", *f))):
        d, e, a = fact
        if (taken[d] < TEST_SHARE * in_domain[d]
                and taken[d, e] < in_entity[d, e] - MIN_TRAIN_PER_ENTITY
                and taken[d, "", a] < min(in_attribute[d, a] // 3, in_attribute[d, a] - MIN_TRAIN_PER_ATTRIBUTE)):
            test.add(fact)
            taken.update([d, (d, e), (d, "", a)])
    return test


def pick(options, held_out, in_test, *seed):
    """An index into options, by hash: the held out one in test, one of the others in train."""
    if in_test and held_out is not None:
        return held_out
    pool = [i for i in range(len(options)) if i != held_out]
    return pool[rank(*seed) % len(pool)]


def build():
    domains, countries = load()
    facts = [(d.name, e, a) for d in domains for e, a, _ in d.facts]
    test = choose_test(facts)
    groups = []
    for domain in domains:
        for entity, attribute, spelled in domain.facts:
            in_test = (domain.name, entity, attribute) in test
            value = value_words(domain, countries, attribute, spelled)
            group = {"id": f"{domain.name}-{entity}-{attribute}", "query": {}, "positive": {}}
            wording = {}
            for lang in LANGS:
                questions, answers = domain.attributes[attribute][lang]
                q = pick(questions, 2, in_test, group["id"], lang, "q")
                a = pick(answers, 1, in_test, group["id"], lang, "a")
                group["query"][lang] = render(lang, questions[q], domain.entities[entity][lang], value[lang])
                group["positive"][lang] = render(lang, answers[a], domain.entities[entity][lang], value[lang])
                wording[lang] = (q, a)
            groups.append((in_test, domain.name, entity, attribute, wording, group))
    groups.sort(key=lambda g: rank("order", g[-1]["id"]))
    return groups


# ---------------------------------------------------------------- checks

def check(groups):
    ids = Counter(g[-1]["id"] for g in groups)
    assert max(ids.values()) == 1, [i for i, n in ids.items() if n > 1]
    for lang in LANGS:
        for side in ("query", "positive"):
            seen = Counter(g[-1][side][lang] for g in groups)
            assert max(seen.values()) == 1, (lang, [t for t, n in seen.items() if n > 1])
            for *_, group in groups:
                text = group[side][lang]
                assert text == text.strip() and "  " not in text and len(text) > 3, (group["id"], lang, text)
                assert not re.search(r"[{}<>~|@/\[\]=_]", text), (group["id"], lang, text)
                assert unicodedata.is_normalized("NFC", text), (group["id"], lang, text)
                letters = [c for c in text if c.isalpha()]
                own = sum(unicodedata.name(c).startswith(SCRIPT[lang]) for c in letters)
                assert own >= 0.6 * len(letters), (group["id"], lang, text)
                end = {"query": "?؟？।.", "positive": ".。।"}[side]
                assert text[-1] in end, (group["id"], lang, text)
    train = [g for g in groups if not g[0]]
    test = [g for g in groups if g[0]]
    pairs = lambda side: {g[1:4] for g in side}
    wordings = lambda side, i: {(g[1], g[3], lang, w[i]) for g in side for lang, w in g[4].items()}
    assert not pairs(train) & pairs(test), "a fact is in both splits"
    assert not wordings(train, 0) & wordings(test, 0), "a question wording is in both splits"
    assert not wordings(train, 1) & wordings(test, 1), "an answer wording is in both splits"
    entity = Counter(g[1:3] for g in train)
    attribute = Counter((g[1], g[3]) for g in train)
    for _, domain, e, a, _, _ in groups:
        assert entity[domain, e] >= MIN_TRAIN_PER_ENTITY, (domain, e, entity[domain, e])
        assert attribute[domain, a] >= MIN_TRAIN_PER_ATTRIBUTE, (domain, a, attribute[domain, a])


def main():
    groups = build()
    check(groups)
    for name, wanted in (("train", False), ("test", True)):
        chosen = [g[-1] for g in groups if g[0] == wanted]
        text = "".join(json.dumps(g, ensure_ascii=False) + "\n" for g in chosen)
        path = ROOT / "data" / f"{name}.jsonl"
        if "--check" in sys.argv:
            assert path.read_text(encoding="utf-8") == text, f"{path} differs from what the lexicon says"
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{name}: {len(chosen)} groups, {len(text.encode()):,} bytes")
    if "--stats" in sys.argv:
        for domain in sorted({g[1] for g in groups}):
            mine = [g for g in groups if g[1] == domain]
            attributes = sorted({g[3] for g in mine})
            print(f"{domain}: {len({g[2] for g in mine})} entities, {len(mine) - sum(g[0] for g in mine)} train, "
                  f"{sum(g[0] for g in mine)} test: {', '.join(attributes)}")


if __name__ == "__main__":
    main()
