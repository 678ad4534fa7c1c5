"""Leave columns that identify a person out of the manifest, unless asked for."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.labels.names import plain
from pipeline.labels.scan_records import ScanRecord

log = logging.getLogger(__name__)

ROLES = (
    "first|last|middle|full|given|family|maiden|birth|legal|preferred|patient|patients|subject"
    "|participant|person|mother|mothers|father|fathers|parent|guardian|spouse|caregiver|contact|kin"
)
PERSONAL = (
    re.compile(rf"(({ROLES})s?)*names?(of)?(the)?({ROLES})*"),
    re.compile(
        r"(patient)?(surname|forename|initials|lastname|nickname|cognome|nome|nomecognome|vorname"
        r"|nachname|familienname|prenom|prénom|nom|nombre|nombres|apellido|apellidos|sobrenome)"
    ),
    re.compile(r".*(birthdate|dateofbirth|birthday|birthdt|dobirth|yearofbirth|birthyear).*"),
    re.compile(r"(patient|subject|participant)?(dob|yob|birth|born|bornon|birthtime)(date|year)?"),
    re.compile(r"geburts(datum|tag|jahr)|geb(datum)?|(data|anno)(di)?nascita|fecha(de)?nacimiento"),
    re.compile(
        r"(patient|home|street|postal|mail|mailing|e?mail|ip|mac|contact)?address(es|line)?\d?"
        r"|street|zip|zipcode|postcode|postalcode|plz|adresse|anschrift|indirizzo|direccion|residence|(emergency)?contact"
    ),
    re.compile(r"(home|work|cell|mobile|contact|patient|tele|cellular)*(phone|fax|mobile)s?(no|nr|number)?\d?"),
    re.compile(r"(tel|telefon|telefono|téléphone|handy)(nr|no|number)?\d?"),
    re.compile(r"氏名|名前|姓名|患者名|生年月日|出生日期|住所|地址|電話(番号)?|电话"),
    re.compile(r"(patient|contact|work|private)?e?mail\d?"),
    re.compile(
        r"(hospital|patient)?mrn|ssn|(patient)?medicalrecord(no|nr|number|id)?|socialsecurity(no|nr|number)?"
        r"|nhs(no|nr|number)?|(hospital|chart|patient)(no|nr|number|id)|accession(no|nr|number)?"
        r"|passport(no|nr|number)?|nationalid|nationalinsurance(no|number)?|personnummer|cpr|bsn"
        r"|codicefiscale|(health)?insurance(no|nr|number|id)|(driver|drivers)licen[cs]e(no|number)?"
    ),
)  # fmt: skip
"""Names of such columns, as small letters and digits alone; ROLES are whom a name belongs to."""


def names_a_person(column: str) -> bool:
    """Return whether a column's name stands for names, births, addresses or record numbers."""
    return any(pattern.fullmatch(plain(column)) for pattern in PERSONAL)


def leave_out_personal(
    records: Iterable[ScanRecord], columns: Mapping[str, str], leave_out: Sequence[str], where: str
) -> None:
    """Remove from all labels the columns that identify a person and those of `leave_out`.

    A column that `columns` names stays, with a warning. Values are never shown.
    """
    everyone = list(records)
    have = dict.fromkeys(str(name) for record in everyone for name in record.labels)
    unwanted = {plain(name) for name in leave_out}
    asked = [name for name in have if plain(name) in unwanted]
    personal = [name for name in have if names_a_person(name) and name not in asked]
    wanted = set(columns.values())
    left = [name for name in personal if name not in wanted]
    kept = [name for name in personal if name in wanted]
    _warn(left, kept, where)
    absent = [name for name in leave_out if plain(name) not in {plain(n) for n in have}]
    if absent:
        log.warning(
            "%s: cohort.leave_out: no column %s with entries (there are %s)",
            where, ", ".join(absent), ", ".join(have) or "none",
        )  # fmt: skip
    gone = {*asked, *left}
    for record in everyone:
        record.labels = {k: v for k, v in record.labels.items() if k not in gone}


def _warn(left: Sequence[str], kept: Collection[str], where: str) -> None:
    if left:
        log.warning(
            "%s: left out of the manifest, since they may name a person: %s; to keep one, name it:"
            " --set 'cohort.columns={%s: %s}'",
            where, ", ".join(left), re.sub(r"\W", "_", left[0]), left[0],
        )  # fmt: skip
    if kept:
        log.warning(
            "%s: columns that may name a person go into the manifest, as cohort.columns asks: %s",
            where, ", ".join(kept),
        )  # fmt: skip
