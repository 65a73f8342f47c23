"""The licences of bases, as the Hub states them: what is made of a base can be given on under its terms only."""

from __future__ import annotations

from dataclasses import dataclass

LICENCE_TO_FILL_IN = "The base's licence is not known to svdtrain: fill this in before you publish."


@dataclass(frozen=True)
class Licence:
    """A base's licence, by the names of a model card's front matter."""

    identifier: str
    """The Hub's, or `other`."""
    name: str = ""
    """Of a licence that is `other`."""
    link: str = ""
    terms: str = ""
    """What a reader must know before the text itself; a whole sentence."""


UNKNOWN = Licence("other")
NON_COMMERCIAL = Licence("cc-by-nc-4.0", terms="It allows no commercial use.")


def _stability(base: str, name: str = "stable-video-diffusion-community") -> Licence:
    terms = "It has terms for commercial use and for those who pass on what is derived from it: read it first."
    return Licence("other", name, f"https://huggingface.co/{base}/blob/main/LICENSE.md", terms)


def _zai(base: str) -> Licence:
    terms = "It has terms for commercial use: read it first."
    return Licence("other", "cogvideox-license", f"https://huggingface.co/{base}/blob/main/LICENSE", terms)


_XT_1_1 = "stabilityai/stable-video-diffusion-img2vid-xt-1-1"
BASES = {
    "nano": Licence("apache-2.0"),
    **{
        base: _stability(base)
        for base in ("stabilityai/stable-video-diffusion-img2vid", "stabilityai/stable-video-diffusion-img2vid-xt")
    },
    _XT_1_1: _stability(_XT_1_1, "stable-video-diffusion-1-1-community"),
    "ali-vilab/text-to-video-ms-1.7b": NON_COMMERCIAL,
    "cerspense/zeroscope_v2_576w": NON_COMMERCIAL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Licence(
        "creativeml-openrail-m", terms="It forbids some uses, and whoever passes this on has to forbid them too."
    ),
    "ali-vilab/i2vgen-xl": Licence("mit", terms="Its authors say besides: for research, no commercial use."),
    "zai-org/CogVideoX-2b": Licence("apache-2.0"),
    **{
        base: _zai(base)
        for base in (
            "zai-org/CogVideoX-5b",
            "zai-org/CogVideoX-5b-I2V",
            "zai-org/CogVideoX1.5-5B",
            "zai-org/CogVideoX1.5-5B-I2V",
        )
    },
}
"""Hub id, or `nano` for the packaged base -> its licence."""


def licence_of(base: str) -> Licence:
    """The licence of a base by its Hub id (or `nano`); UNKNOWN for any other."""
    return BASES.get(base, UNKNOWN)
