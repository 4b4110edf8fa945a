"""Language codes: containers write three letters (ISO 639-2), file names and Whisper two (ISO 639-1)."""

# ISO 639-2 (terminology and bibliographic codes) to ISO 639-1: the languages of Whisper.
# Source: https://www.loc.gov/standards/iso639-2/
_PAIRS = """
afr af  amh am  ara ar  asm as  aze az  bak ba  bel be  ben bn  bod bo  tib bo  bos bs  bre br  bul bg  cat ca
ces cs  cze cs  cym cy  wel cy  dan da  deu de  ger de  ell el  gre el  eng en  est et  eus eu  baq eu  fao fo
fas fa  per fa  fin fi  fra fr  fre fr  glg gl  guj gu  hat ht  hau ha  haw haw  heb he  hin hi  hrv hr  hun hu
hye hy  arm hy  ind id  isl is  ice is  ita it  jav jv  jpn ja  kan kn  kat ka  geo ka  kaz kk  khm km  kor ko
lao lo  lat la  lav lv  lin ln  lit lt  ltz lb  mal ml  mar mr  mkd mk  mac mk  mlg mg  mlt mt  mon mn  mri mi
mao mi  msa ms  may ms  mya my  bur my  nep ne  nld nl  dut nl  nno nn  nob no  nor no  oci oc  pan pa  pol pl
por pt  pus ps  ron ro  rum ro  rus ru  san sa  sin si  slk sk  slo sk  slv sl  sna sn  snd sd  som so  spa es
sqi sq  alb sq  srp sr  sun su  swa sw  swe sv  tam ta  tat tt  tel te  tgk tg  tgl tl  tha th  tuk tk  tur tr
ukr uk  urd ur  uzb uz  vie vi  yid yi  yor yo  zho zh  chi zh
"""
_CODES = _PAIRS.split()
_TWO_LETTERS = dict(zip(_CODES[::2], _CODES[1::2], strict=True))


def short_code(language: str) -> str:
    """The primary language of a tag, in two letters where there are any: `eng`, `en-GB` and `EN` are all `en`."""
    primary = language.replace("_", "-").split("-")[0].lower()
    return _TWO_LETTERS.get(primary, primary)


def same_language(one: str | None, other: str | None) -> bool:
    """Whether two tags name the same language, whatever its region or script. Unknown equals nothing."""
    return one is not None and other is not None and short_code(one) == short_code(other)
