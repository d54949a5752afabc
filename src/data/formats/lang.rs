//! Language codes: one spelling for each language, however the data writes it.

/// ISO 639-1 codes, each with its code of three letters (ISO 639-3) and, where that differs, the bibliographic one of
/// ISO 639-2. A slip such as `ge` for `de` would otherwise become a language of its own, and so would `deu`.
const CODES: &str = "\
    aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis \
    bm:bam bn:ben bo:bod:tib br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces:cze cu:chu cv:chv cy:cym:wel \
    da:dan de:deu:ger dv:div dz:dzo ee:ewe el:ell:gre en:eng eo:epo es:spa et:est eu:eus:baq fa:fas:per ff:ful fi:fin \
    fj:fij fo:fao fr:fra:fre fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv \
    ht:hat hu:hun hy:hye:arm hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl:ice it:ita iu:iku ja:jpn \
    jv:jav ka:kat:geo kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor \
    ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri:mao mk:mkd:mac ml:mal \
    mn:mon mr:mar ms:msa:may mt:mlt my:mya:bur na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld:dut nn:nno no:nor nr:nbl \
    nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run \
    ro:ron:rum ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag sh:hbs si:sin sk:slk:slo sl:slv sm:smo sn:sna so:som \
    sq:sqi:alb sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn \
    to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho \
    yi:yid yo:yor za:zha zh:zho:chi zu:zul";

/// Codes that ISO 639-1 has withdrawn, with what replaced them; older data has them.
const WITHDRAWN: [(&str, &str); 5] = [("in", "id"), ("iw", "he"), ("ji", "yi"), ("jw", "jv"), ("mo", "ro")];

/// A language code in its one spelling (BCP 47): `en`, `yue`, `zh-Hant`, `pt-BR`, `zh-Hant-TW`. Case, `_` for `-` and
/// codes of three letters where there is one of two (`deu`) make no other language. The error is a message without file
/// and line.
pub fn language(code: &str) -> Result<String, String> {
    let wrong = || format!("unknown language {code:?}; write its ISO 639 code, such as en, sw, yue, pt-BR or zh-Hant");
    let mut parts = code.split(['-', '_']);
    let mut lang = primary(parts.next().unwrap_or_default()).ok_or_else(wrong)?;
    for part in parts {
        lang.push('-');
        lang.push_str(&subtag(part).ok_or_else(wrong)?);
    }
    Ok(lang)
}

/// The language itself, as ISO 639-1 has it, else as ISO 639-3.
fn primary(code: &str) -> Option<String> {
    let code = code.to_ascii_lowercase();
    let is_word = code.bytes().all(|byte| byte.is_ascii_lowercase());
    let known = CODES.split(' ').find(|codes| codes.split(':').any(|one| one == code));
    match (known, code.len()) {
        (Some(codes), _) => Some(codes[..2].to_owned()),
        (None, 2) => WITHDRAWN.iter().find(|(old, _)| *old == code).map(|(_, new)| (*new).to_owned()),
        (None, 3) if is_word => Some(code),
        _ => None,
    }
}

/// A script (`Hant`) or a region (`BR`, `419`).
fn subtag(part: &str) -> Option<String> {
    let is_word = part.bytes().all(|byte| byte.is_ascii_alphabetic());
    match part.len() {
        4 if is_word => Some(part[..1].to_ascii_uppercase() + &part[1..].to_ascii_lowercase()),
        2 if is_word => Some(part.to_ascii_uppercase()),
        3 if part.bytes().all(|byte| byte.is_ascii_digit()) => Some(part.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_language() {
        for lang in ["en", "yue", "und", "zh-Hant", "pt-BR", "zh-Hant-TW", "es-419"] {
            assert_eq!(language(lang).as_deref(), Ok(lang));
        }
        let spelled = [
            ("EN", "en"),
            ("zh_Hant", "zh-Hant"),
            ("zh-hant", "zh-Hant"),
            ("pt-br", "pt-BR"),
            ("sr-LATN", "sr-Latn"),
            ("deu", "de"),
            ("ger", "de"),
            ("arb_Arab", "arb-Arab"),
            ("iw", "he"),
        ];
        for (written, lang) in spelled {
            assert_eq!(language(written).as_deref(), Ok(lang));
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for lang in ["", "e", "ge", "english", "zh-", "en-usa", "日本", "zh-日本", "-en", "e1f", "en-x-y"] {
            assert!(language(lang).unwrap_err().contains(&format!("{lang:?}")), "{lang}");
        }
    }
}
