"""Six languages' words and sentence templates for the product texts of catalog.synthetic."""

from dataclasses import dataclass

BRANDS = (
    "Brelko Tavindo Quorvy Sulmara Nefrin Dunvarro Mirepo Zaltika Havdun Pelluno Corvessa Trintal Lomequi Fardena "
    "Vendrik Rubelo Kestova Jandoro Belwick Sandrova Motiga Wilmette Nordelle Galvaro"
).split()


@dataclass(frozen=True)
class Language:
    """One language's product words.

    Args:
        nouns: {category: noun}; a noun is "word" or "word/gender" with gender m, f, n or p (plural).
        item: a noun that names no category.
        colours, patterns: {tag: adjective or phrase}; where forms differ by gender, "m/f", or a German stem and "-".
        features: {tag: sentence}.
        phrase: order of "{colour}", "{pattern}" and "{noun}".
        titles: templates with "{brand}", "{model}" and "{phrase}" ("{Phrase}": first letter in upper case).
        labels: {"category" | "colour" | "pattern": sentence with "{}"}.
        openings, closings: sentences that say nothing about the tags.
        gap: what stands between sentences.
    """

    nouns: dict[str, str]
    item: str
    colours: dict[str, str]
    patterns: dict[str, str]
    features: dict[str, str]
    phrase: str
    titles: tuple[str, ...]
    labels: dict[str, str]
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    gap: str = " "

    def noun_phrase(self, category: str | None, colour: str | None, pattern: str | None) -> str:
        """For Dress, Red, Striped "rotes gestreiftes Kleid"; what is None is left unsaid."""
        noun, _, gender = (self.nouns[category] if category else self.item).partition("/")
        words = {
            "colour": _agree(self.colours[colour], gender) if colour else "",
            "pattern": _agree(self.patterns[pattern], gender) if pattern else "",
            "noun": noun,
        }
        phrase = self.phrase.format(**words)
        return " ".join(phrase.split())

    def statement(self, attribute: str, tag: str) -> str:
        """For colour, Red: "Farbe: rot"."""
        words = {"category": self.nouns, "colour": self.colours, "pattern": self.patterns}[attribute][tag]
        word = words.partition("/")[0].removesuffix("-")
        return self.labels[attribute].format(word)


def _agree(word: str, gender: str) -> str:
    if word.endswith("-"):
        return word[:-1] + {"m": "er", "f": "e", "n": "es", "p": "e"}[gender]
    masculine, _, feminine = word.partition("/")
    return feminine if feminine and gender == "f" else masculine


def capitalise(text: str, language: str) -> str:
    """First letter in upper case; the Turkish i keeps its dot."""
    first = "İ" if language == "tr" and text[0] == "i" else text[0].upper()
    return first + text[1:]


def upper(text: str, language: str) -> str:
    """The whole text in upper case; the Turkish i keeps its dot."""
    return (text.replace("i", "İ") if language == "tr" else text).upper()


def _table(keys: str, words: str) -> dict[str, str]:
    return dict(zip(keys.split(","), (word.strip() for word in words.split(",")), strict=True))


_CATEGORIES = "T-Shirt,Dress,Trousers,Handbag,Mug,Boot,Lamp,Backpack,Cushion,Vase,Cap,Umbrella,Chair,Sock"
_COLOURS = "Black,Blue,White,Red,Grey,Green,Pink,Brown,Beige,Yellow,Purple,Orange"
_PATTERNS = "Striped,Checked,Dotted,Floral,Zigzag"
_FEATURES = "Contrast Trim,Star Print,Gift Wrapped,Waterproof,Handmade,Recycled"

LANGUAGES = {
    "en": Language(
        nouns=_table(
            _CATEGORIES, "T-shirt,dress,trousers,handbag,mug,boot,lamp,backpack,cushion,vase,cap,umbrella,chair,sock"
        ),
        item="item",
        colours=_table(_COLOURS, "black,blue,white,red,grey,green,pink,brown,beige,yellow,purple,orange"),
        patterns=_table(_PATTERNS, "striped,checked,dotted,floral,zigzag"),
        features=_table(
            _FEATURES,
            "With a contrast trim.,Printed with a star.,Comes gift wrapped.,Waterproof.,Made by hand.,"
            "Made of recycled material.",
        ),
        phrase="{colour} {pattern} {noun}",
        titles=("{brand} {phrase}", "{Phrase} by {brand}", "{brand} {model} {phrase}", "{Phrase} – {brand} {model}"),
        labels={"category": "Product type: {}.", "colour": "Colour: {}.", "pattern": "Pattern: {}."},
        openings=(
            "A favourite for every day.",
            "New this season.",
            "Designed in a small studio.",
            "Simple, practical and made to last.",
        ),
        closings=(
            "Delivered within three days.",
            "Free returns for thirty days.",
            "See the last picture for the measurements.",
            "Only a few left.",
        ),
    ),
    "de": Language(
        nouns=_table(
            _CATEGORIES,
            "T-Shirt/n,Kleid/n,Hose/f,Handtasche/f,Becher/m,Stiefel/m,Lampe/f,Rucksack/m,Kissen/n,Vase/f,Kappe/f,"
            "Regenschirm/m,Stuhl/m,Socken/p",
        ),
        item="Artikel/m",
        colours=_table(_COLOURS, "schwarz-,blau-,weiß-,rot-,grau-,grün-,rosa,braun-,beige,gelb-,lila,orange"),
        patterns=_table(_PATTERNS, "gestreift-,kariert-,gepunktet-,geblümt-,zickzackgemustert-"),
        features=_table(
            _FEATURES,
            "Mit Kontrastborte.,Mit Sternmotiv.,Kommt als Geschenk verpackt.,Wasserdicht.,Von Hand gefertigt.,"
            "Aus recyceltem Material.",
        ),
        phrase="{colour} {pattern} {noun}",
        titles=("{brand} {phrase}", "{Phrase} von {brand}", "{brand} {model} {phrase}", "{Phrase} – {brand} {model}"),
        labels={"category": "Produktart: {}.", "colour": "Farbe: {}.", "pattern": "Muster: {}."},
        openings=(
            "Ein Lieblingsstück für jeden Tag.",
            "Neu in dieser Saison.",
            "In einem kleinen Atelier entworfen.",
            "Schlicht, praktisch und langlebig.",
        ),
        closings=(
            "Lieferung innerhalb von drei Tagen.",
            "Dreißig Tage kostenlose Rückgabe.",
            "Die Maße stehen auf dem letzten Bild.",
            "Nur noch wenige vorrätig.",
        ),
    ),
    "fr": Language(
        nouns=_table(
            _CATEGORIES,
            "tee-shirt/m,robe/f,pantalon/m,sac à main/m,mug/m,botte/f,lampe/f,sac à dos/m,coussin/m,vase/m,casquette/f,"
            "parapluie/m,chaise/f,chaussette/f",
        ),
        item="article/m",
        colours=_table(
            _COLOURS,
            "noir/noire,bleu/bleue,blanc/blanche,rouge,gris/grise,vert/verte,rose,marron,beige,jaune,violet/violette,"
            "orange",
        ),
        patterns=_table(_PATTERNS, "à rayures,à carreaux,à pois,à fleurs,à zigzags"),
        features=_table(
            _FEATURES,
            "Avec une bordure contrastée.,Imprimé étoile.,Avec paquet cadeau.,Étanche.,Travail artisanal.,"
            "En matière recyclée.",
        ),
        phrase="{noun} {colour} {pattern}",
        titles=("{brand} {phrase}", "{Phrase} de {brand}", "{brand} {model} {phrase}", "{Phrase} – {brand} {model}"),
        labels={"category": "Type de produit : {}.", "colour": "Couleur : {}.", "pattern": "Motif : {}."},
        openings=(
            "Un indispensable du quotidien.",
            "Nouveauté de la saison.",
            "Création d'un petit atelier.",
            "Simple, pratique et durable.",
        ),
        closings=(
            "Livraison sous trois jours.",
            "Retour gratuit pendant trente jours.",
            "Les dimensions sont sur la dernière photo.",
            "Stock limité.",
        ),
    ),
    "es": Language(
        nouns=_table(
            _CATEGORIES,
            "camiseta/f,vestido/m,pantalón/m,bolso de mano/m,taza/f,bota/f,lámpara/f,mochila/f,cojín/m,jarrón/m,"
            "gorra/f,paraguas/m,silla/f,calcetín/m",
        ),
        item="artículo/m",
        colours=_table(
            _COLOURS,
            "negro/negra,azul,blanco/blanca,rojo/roja,gris,verde,rosa,marrón,beige,amarillo/amarilla,morado/morada,"
            "naranja",
        ),
        patterns=_table(_PATTERNS, "de rayas,de cuadros,de lunares,de flores,en zigzag"),
        features=_table(
            _FEATURES,
            "Con ribete en contraste.,Con una estrella estampada.,Con envoltorio de regalo.,Impermeable.,"
            "Elaboración artesanal.,De material reciclado.",
        ),
        phrase="{noun} {colour} {pattern}",
        titles=("{brand} {phrase}", "{Phrase} de {brand}", "{brand} {model} {phrase}", "{Phrase} – {brand} {model}"),
        labels={"category": "Tipo de producto: {}.", "colour": "Color: {}.", "pattern": "Diseño: {}."},
        openings=(
            "Un favorito para cada día.",
            "Novedad de la temporada.",
            "Creación de un pequeño taller.",
            "Sencillez y calidad que duran.",
        ),
        closings=(
            "Entrega en tres días.",
            "Devolución gratuita durante treinta días.",
            "Consulta las medidas en la última imagen.",
            "Quedan pocas unidades.",
        ),
    ),
    "tr": Language(
        nouns=_table(
            _CATEGORIES,
            "tişört,elbise,pantolon,el çantası,kupa,çizme,lamba,sırt çantası,yastık,vazo,şapka,şemsiye,sandalye,çorap",
        ),
        item="ürün",
        colours=_table(_COLOURS, "siyah,mavi,beyaz,kırmızı,gri,yeşil,pembe,kahverengi,bej,sarı,mor,turuncu"),
        patterns=_table(_PATTERNS, "çizgili,kareli,puantiyeli,çiçekli,zikzaklı"),
        features=_table(
            _FEATURES,
            "Kontrast kenarlı.,Yıldız baskılı.,Hediye paketiyle gönderilir.,Su geçirmez.,El yapımı.,"
            "Geri dönüştürülmüş malzemeden.",
        ),
        phrase="{colour} {pattern} {noun}",
        titles=("{brand} {phrase}", "{brand} {model} {phrase}", "{Phrase} – {brand}", "{Phrase} – {brand} {model}"),
        labels={"category": "Ürün tipi: {}.", "colour": "Renk: {}.", "pattern": "Desen: {}."},
        openings=(
            "Her güne uygun.",
            "Bu sezonun yenisi.",
            "Küçük bir atölyede tasarlandı.",
            "Sade, kullanışlı ve uzun ömürlü.",
        ),
        closings=(
            "Üç gün içinde teslim edilir.",
            "Otuz gün ücretsiz iade.",
            "Ölçüler son fotoğrafta.",
            "Son birkaç adet kaldı.",
        ),
    ),
    "zh": Language(
        nouns=_table(_CATEGORIES, "T恤,连衣裙,长裤,手提包,马克杯,靴子,台灯,双肩包,抱枕,花瓶,棒球帽,雨伞,椅子,袜子"),
        item="商品",
        colours=_table(_COLOURS, "黑色,蓝色,白色,红色,灰色,绿色,粉色,棕色,米色,黄色,紫色,橙色"),
        patterns=_table(_PATTERNS, "条纹,格纹,波点,碎花,锯齿纹"),
        features=_table(_FEATURES, "撞色包边。,星星印花。,附礼品包装。,防水。,手工制作。,采用再生材料。"),
        phrase="{colour}{pattern}{noun}",
        titles=("{brand}{phrase}", "【{brand}】{phrase}", "{brand} {model} {phrase}", "{phrase} {brand}"),
        labels={"category": "品类：{}。", "colour": "颜色：{}。", "pattern": "图案：{}。"},
        openings=("日常百搭。", "本季新品。", "小型工作室设计。", "简约实用，经久耐用。"),
        closings=("三天内送达。", "三十天内免费退货。", "尺寸请见最后一张图。", "库存不多。"),
        gap="",
    ),
}
