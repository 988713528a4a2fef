"""Names of people, places and things, put together from small parts."""

from models.demo.drawing.assets import unseen_words
from models.demo.drawing.assets import words as seen_words
from models.demo.writing.vocabulary import Draw, Pool, words

FIRST_NAMES = Pool.of(
    words("""
    Anna, Omar, Julia, Peter, Mei, David, Sofia, Tom, Ingrid, Rahul, Clara, Samuel, Nina, Carlos
    Emma, Yusuf, Laura, Daniel, Priya, Martin, Lena, Victor, Alice, Hugo, Maria, Felix, Grace, Ivan
    Helen, Oscar, Ruth, Leo, Amina, Frank, Elena, George, Zoe, Henry, Marta, Paul, Irene, Adam
    Rosa, Simon, Diana, Marco, Judith, Kenji, Olga, Ben, Teresa, Karim, Eva, Walter, Naomi, Luis
    """)
)
SURNAMES = Pool.of(
    words("""
    Miller, Rossi, Tanaka, Weber, Novak, Garcia, Larsen, Cohen, Dubois, Silva, Khan, Murphy, Fischer
    Moreau, Patel, Andersson, Kowalski, Brown, Okafor, Petrov, Jansen, Hill, Marino, Schmidt, Reyes
    Carter, Lindgren, Haddad, Bauer, Wright, Costa, Nakamura, Walsh, Keller, Ivanov, Morgan, Bianchi
    Hughes, Virtanen, Ramos, Clarke, Meyer, Santos, Fletcher, Berg, Romano, Palmer, Nielsen, Fox
    Ortega, Sato, Baker, Vogel, Harper, Mendes, Gray, Leclerc, Stone, Nguyen, Becker, Shaw, Varga
    """)
)
PLACES = Pool.of(
    words("""
    Riverside, Oakwood, Hillcrest, Marlow, Ashford, Westbrook, Greenfield, Lakeside, Fairview
    Kingsbridge, Elmhurst, Northgate, Seaview, Brookfield, Stonebridge, Millbrook, Easton, Whitby
    Redhill, Clearwater, Summerfield, Harrow, Pinewood, Longford, Silverton, Glenview, Highbury
    Maplewood, Sandown, Weston, Cedar Valley, Bayside, Thornton, Ridgeway, Kingston, Alder Bay
    Norwood, Hazelton, Eastgate, Old Harbour, Mill Lane, Castle Hill, Rosewood, Fern Valley
    """)
)
CITIES = Pool.of(
    words("""
    Lisbon, Kyoto, Vienna, Oslo, Marrakesh, Prague, Dublin, Havana, Seville, Athens, Bergen, Quebec
    Porto, Krakow, Edinburgh, Naples, Hanoi, Zagreb, Bruges, Valencia, Tallinn, Cusco, Salzburg
    Florence, Istanbul, Reykjavik, Melbourne, Cape Town, Vancouver, Copenhagen, Budapest, Geneva
    Granada, Riga, Lyon, Bologna, Hamburg, Montreal, Split, Ghent, Cork, Bath, Turin, Utrecht
    """)
)
ADJECTIVES = Pool.of(
    words("""
    Blue, Golden, Silver, Little, Green, Happy, Old, Bright, Quiet, Red, Wild, Sunny, White, Lucky
    Royal, Fresh, Merry, Rustic, Northern, Gentle, Grand, Urban, Hidden, Early, Copper, Crystal
    Velvet, Amber, Swift, Honest, Misty, Scarlet, Noble, Rapid, Clever, Warm, Crooked, Electric
    """)
)
NOUNS = Pool.of(
    words("""
    Harbour, Lantern, Fox, Garden, Moon, Bridge, Anchor, Meadow, Star, River, Owl, Orchard, Lion
    Leaf, Compass, Mountain, Pearl, Swan, Forest, Wave, Cloud, Acorn, Falcon, Island, Maple, Feather
    Valley, Crown, Tulip, Comet, Bear, Willow, Stone, Rose, Sparrow, Canyon, Mill, Thistle, Otter
    Pepper, Button, Kettle, Lighthouse, Windmill, Bicycle, Penguin, Walnut, Candle, Heron, Clover
    """)
)
_BEGINNINGS = words(
    "Note, Flux, Cal, Zen, Pix, Trip, Plan, Bud, Sol, Mind, Form, Task, Lum, Vid, Eco"
)
_ENDINGS = words("ly, ora, ify, io, ara, hub, ster, nest, wise, flow, mate, deck, loop, pal, kit")
COINED = Pool.of(first + last for first in _BEGINNINGS for last in _ENDINGS)


def any_word(draw: Draw) -> str:
    """One of two thousand: titles are to be copied, not known."""
    return draw.rng.choice(unseen_words() if draw.is_evaluation else seen_words()).capitalize()


def person(draw: Draw) -> str:
    return f"{draw.one(FIRST_NAMES)} {draw.one(SURNAMES)}"


def house(draw: Draw, kind: str) -> str:
    """What a shop or an inn is called: some name and, mostly, what it is."""
    kind = kind.title()
    match draw.rng.randrange(8):
        case 0:
            return f"{draw.one(SURNAMES)}'s {kind}"
        case 1:
            return f"{draw.one(PLACES)} {kind}"
        case 2:
            return f"{draw.one(NOUNS)} and {draw.one(NOUNS)}"
        case 3:
            return f"The {draw.one(ADJECTIVES)} {draw.one(NOUNS)}"
        case 4:
            return f"{any_word(draw)} {kind}"
        case 5:
            return f"{any_word(draw)} {any_word(draw)}"
        case _:
            return f"{draw.one(ADJECTIVES)} {draw.one(NOUNS)} {kind}"


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
