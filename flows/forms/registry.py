"""The migrations, by the names that people give them."""

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.clip_to_megadescriptor import ClipToMegadescriptor
from flows.forms.multi_model import MultiModel
from flows.forms.shared import Migration
from flows.forms.siglip_to_clip import SiglipToClip
from flows.forms.text_384_to_1536 import Text384To1536

FLOWS: dict[str, type[Migration]] = {
    form.flow: form for form in (ChromaToPgvector, Text384To1536, ClipToMegadescriptor, SiglipToClip, MultiModel)
}
