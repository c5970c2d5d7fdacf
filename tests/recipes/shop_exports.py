"""Made-up exports in the form of systems that `hf_tagger example` does not write, with all columns that these have."""

import csv
import itertools
import json

from hf_tagger.catalog.synthetic.products import generate

MAGENTO = (
    "sku store_view_code attribute_set_code product_type categories product_websites name description "
    "short_description weight product_online tax_class_name visibility price special_price url_key meta_title "
    "meta_keywords meta_description base_image base_image_label small_image small_image_label thumbnail_image "
    "thumbnail_image_label swatch_image created_at updated_at display_product_options_in additional_attributes "
    "qty out_of_stock_qty use_config_min_qty is_qty_decimal allow_backorders is_in_stock notify_on_stock_below "
    "manage_stock use_config_manage_stock website_id related_skus crosssell_skus upsell_skus additional_images "
    "additional_image_labels configurable_variations").split()
AKENEO = ("sku categories enabled family groups parent color description-en_US-ecommerce image name-en_US price-EUR "
          "print features weight weight-unit").split()  # fmt: skip
BIGCOMMERCE = [
    "Item Type", "Product ID", "Product Name", "Product Type", "Product Code/SKU", "Bin Picking Number", "Brand Name",
    "Option Set", "Product Description", "Price", "Cost Price", "Retail Price", "Sale Price", "Fixed Shipping Cost",
    "Free Shipping", "Product Weight", "Allow Purchases?", "Product Visible?", "Product Availability",
    "Track Inventory", "Current Stock Level", "Low Stock Level", "Category", "Product Image ID - 1",
    "Product Image File - 1", "Product Image Description - 1", "Product Image Is Thumbnail - 1",
    "Product Image Sort - 1", "Search Keywords", "Page Title", "Product Condition", "Sort Order", "Product Tax Class",
    "Product Custom Fields"]  # fmt: skip
BIGCOMMERCE_DEFAULT = [
    "Product ID", "Product Type", "Code", "Name", "Brand", "Description", "Cost Price", "Retail Price", "Sale Price",
    "Calculated Price", "Fixed Shipping Price", "Free Shipping", "Warranty", "Weight", "Width", "Height", "Depth",
    "Allow Purchases", "Product Visible", "Product Availability", "Product Inventoried", "Stock Level",
    "Low Stock Level", "Date Added", "Date Modified", "Category Details", "Images", "Page Title", "META Keywords",
    "META Description", "Product Condition", "Product URL", "Redirect Old URL?", "Product Tax Code",
    "Product Custom Fields"]
BIGCOMMERCE_MODERN = [
    "Item", "ID", "Name", "Type", "SKU", "Options", "Inventory Tracking", "Current Stock", "Low Stock", "Price",
    "Cost Price", "Retail Price", "Sale Price", "Brand ID", "Channels", "Categories", "Description", "Custom Fields",
    "Page Title", "Product URL", "Meta Description", "Search Keywords", "Meta Keywords", "Bin Picking Number",
    "UPC/EAN", "Global Trade Number", "Manufacturer Part Number", "Free Shipping", "Fixed Shipping Cost", "Weight",
    "Width", "Height", "Depth", "Is Visible", "Is Featured", "Warranty", "Tax Class", "Product Condition",
    "Show Product Condition", "Sort Order", "Variant Image URL", "Internal Image URL (Export)", "Image URL (Import)",
    "Image Description", "Image is Thumbnail", "Image Sort Order", "YouTube ID", "Video Title", "Video Description",
    "Video Sort Order"]
PRESTASHOP = [
    "Product ID", "Active (0/1)", "Name *", "Categories (x,y,z...)", "Price tax excluded", "Tax rules ID",
    "Wholesale price", "On sale (0/1)", "Reference #", "Supplier", "Manufacturer", "EAN13", "Width", "Weight",
    "Quantity", "Visibility", "Summary", "Description", "Tags (x,y,z...)", "Meta title", "URL rewritten",
    "Text when in stock", "Available for order (0 = No, 1 = Yes)", "Image URLs (x,y,z...)",
    "Feature (Name:Value:Position:Customized)", "Condition"]  # fmt: skip
ETSY = ["TITLE", "DESCRIPTION", "PRICE", "CURRENCY_CODE", "QUANTITY", "TAGS", "MATERIALS",
        *(f"IMAGE{number}" for number in range(1, 11)),
        *(f"VARIATION {number} {key}" for number in (1, 2) for key in ("TYPE", "NAME", "VALUES")), "SKU"]
WIX = [*("handleId fieldType name description productImageUrl collection sku ribbon price surcharge visible "
         "discountMode discountValue inventory weight cost").split(),
       *(f"productOption{key}{number}" for number in range(1, 7) for key in ("Name", "Type", "Description")),
       *(f"additionalInfo{key}{number}" for number in range(1, 7) for key in ("Title", "Description")),
       *(f"customText{key}{number}" for number in (1, 2) for key in ("Field", "CharLimit", "Mandatory")), "brand"]
SQUARESPACE = ["Product ID [Non Editable]", "Variant ID [Non Editable]", "Product Type [Non Editable]", "Product Page",
               "Product URL", "Title", "Description", "SKU",
               *(f"Option {key} {number}" for number in range(1, 7) for key in ("Name", "Value")), "Price",
               "Sale Price", "On Sale", "Stock", "Categories", "Tags", "Weight", "Length", "Width", "Height", "Visible",
               "Hosted Image URLs"]
ODOO = ["External ID", "Name", "Internal Reference", "Barcode", "Product Type", "Product Category", "Sales Price",
        "Can be Sold", "Sales Description", "Product Tags", "Product Attributes/Attribute", "Product Attributes/Values",
        "Unit of Measure", "Responsible/Email"]


def products(number=200):
    rows = (row for row in generate(rows=3 * number, languages=("en",), picture_size=0, junk=0.0, unknown=0.0)
            if row["title"])
    return list(itertools.islice(rows, number))


def write(path, columns, rows, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, restval="", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def magento(path):
    rows = []
    for row in products():
        given = {"print": row["pattern"], "features": "|".join(row["features"]), "care": "Wash cold, hang dry"}
        options = "".join(f",{code}={value}" for code, value in given.items() if value)
        rows.append({
            "sku": row["id"], "attribute_set_code": "Default", "product_type": "simple", "product_websites": "base",
            "categories": f"Default Category/Shop/{row['category']},Default Category/New", "name": row["title"],
            "description": f"<p>{row['description']}</p>", "weight": "0.3000", "product_online": 1,
            "tax_class_name": "Taxable Goods", "visibility": "Catalog, Search", "price": "34.0000",
            "url_key": row["id"].lower(), "meta_title": row["title"], "base_image": f"/m/{row['id']}.jpg",
            "small_image": f"/m/{row['id']}.jpg", "thumbnail_image": f"/m/{row['id']}.jpg", "base_image_label": "Front",
            "created_at": "1/2/24, 3:04 AM", "updated_at": "2/2/24, 3:04 AM", "display_product_options_in": "Block",
            "additional_attributes": f"color={row['colour']}{options}", "qty": "7.0000", "is_in_stock": 1,
            "use_config_manage_stock": 1, "website_id": 0,
            "additional_images": f"/m/{row['id']}.jpg,/m/x{row['id']}.jpg"})
        rows.append({"sku": row["id"], "store_view_code": "fr", "name": f"FR {row['title']}"})
    return write(path, MAGENTO, rows)


def akeneo(path):
    rows = [{"sku": row["id"], "categories": f"shop,{row['category'].lower()}", "enabled": 1, "family": "clothing",
             "parent": row["product"].lower(), "color": row["colour"].lower(), "name-en_US": row["title"],
             "description-en_US-ecommerce": row["description"], "image": f"files/{row['id']}/image/a.jpg",
             "price-EUR": "19.90", "print": row["pattern"].lower(), "weight": "0.3", "weight-unit": "KILOGRAM",
             "features": ",".join(tag.lower().replace(" ", "_") for tag in row["features"])} for row in products()]
    return write(path, AKENEO, rows, delimiter=";")


def bigcommerce(path):
    rows = []
    for number, row in enumerate(products(), start=1):
        rows.append({
            "Item Type": "Product", "Product ID": number, "Product Name": row["title"], "Product Type": "P",
            "Product Code/SKU": row["id"], "Brand Name": "Acme", "Product Description": row["description"],
            "Price": "19.90", "Free Shipping": "N", "Product Weight": "0.3", "Allow Purchases?": "Y",
            "Product Visible?": "Y", "Track Inventory": "none", "Current Stock Level": number % 9,
            "Category": f"Shop/{row['category']};Shop/New", "Product Image ID - 1": 900 + number,
            "Product Image File - 1": f"a/{number}.jpg", "Product Image Is Thumbnail - 1": "Y",
            "Product Image Sort - 1": 0, "Search Keywords": ", ".join(row["features"]), "Product Condition": "New",
            "Page Title": row["title"], "Product Custom Fields": f"Colour={row['colour']};Print={row['pattern']}"})
        rows.append({"Item Type": "  SKU", "Product ID": 9000 + number,
                     "Product Name": "[RB]Size=" + ["Small", "Large"][number % 2],
                     "Product Code/SKU": f"{row['id']}-S"})
    return write(path, BIGCOMMERCE, rows)


def bigcommerce_modern(path):
    rows, numbers = [], {}
    for number, row in enumerate(products(), start=1):
        fields = [{"name": "Print", "value": row["pattern"]}]
        colour = f"Type=Swatch|Name=Colour|Value={row['colour']}[#11aaff]"
        rows.append({
            "Item": "Product", "ID": number, "Name": row["title"], "Type": ["physical", "digital"][number % 9 == 0],
            "SKU": row["id"], "Inventory Tracking": "variant", "Current Stock": number % 9, "Price": "19.90",
            "Brand ID": number % 3 + 30, "Channels": "1;2" if number % 2 else "1", "Description": row["description"],
            "Categories": f"{numbers.setdefault(row['category'], len(numbers) + 20)};19",
            "Custom Fields": json.dumps(fields), "Search Keywords": ",".join(row["features"]), "Weight": "0.3",
            "Is Visible": "TRUE", "Is Featured": "FALSE", "Product Condition": "New", "Page Title": row["title"]})
        rows += [{"Item": "Variant", "ID": 9000 + 2 * number + place, "SKU": f"{row['id']}-{size}", "Price": "19.90",
                  "Options": f"Type=Rectangle|Name=Size|Value={size}{colour}",
                  "Free Shipping": "FALSE"} for place, size in enumerate("SM")]
        rows.append({"Item": "Image", "ID": 700 + number, "Image is Thumbnail": "TRUE", "Image Sort Order": 0,
                     "Internal Image URL (Export)": f"https://cdn.example/{number}.jpg?c=1"})
        rows += [{"Item": "Video", "ID": 300 + number, "YouTube ID": "x1", "Video Title": "How to"}] * (number % 5 == 0)
    return write(path, BIGCOMMERCE_MODERN, rows)


def bigcommerce_default(path):
    """The older form's template "Default": one row each, categories and photos in words of their own."""
    rows = []
    for number, row in enumerate(products(), start=1):
        paths = [f"Shop/{row['category']}", "Shop/New"] if row["category"] else ["Shop/New"]
        photo = f"{row['id']}__{number}.jpg"
        rows.append({
            "Product ID": number, "Product Type": "P", "Code": row["id"], "Name": row["title"], "Brand": "Acme",
            "Description": row["description"], "Calculated Price": "19.90", "Free Shipping": "N", "Weight": "0.3",
            "Allow Purchases": "Y", "Product Visible": "Y", "Product Inventoried": "N", "Stock Level": number % 9,
            "Date Added": f"07/{number % 12 + 1:02d}/2019", "Date Modified": "21/01/2021", "Page Title": row["title"],
            "Category Details": "|".join(f"Category Name: {path.rpartition('/')[2]}, Category Path: {path}"
                                         for path in paths),
            "Images": "|".join(f"Product Image File: {part}{photo}, Product Image URL: https://cdn.example/{part}{photo}"
                               for part in ("", "b/")[:1 + number % 2]),
            "META Keywords": row["title"], "Product Condition": "New", "Product URL": f"/{row['id'].lower()}/",
            "Product Custom Fields": f'Colour={row["colour"]}";"Print={row["pattern"]}' if row["pattern"] else
                                     f"Colour={row['colour']}"})
    return write(path, BIGCOMMERCE_DEFAULT, rows)


def prestashop(path):
    rows = [{"Product ID": number, "Active (0/1)": 1, "Name *": row["title"], "Price tax excluded": "16.72",
             "Categories (x,y,z...)": f"Home/{row['category']},Home/New", "On sale (0/1)": 0, "Reference #": row["id"],
             "Manufacturer": "Acme", "EAN13": 4_000_000_000_000 + number, "Width": "10", "Weight": "0.3", "Quantity": 7,
             "Visibility": "both", "Description": f"<p>{row['description']}</p>", "Meta title": row["title"],
             "Tags (x,y,z...)": ",".join(row["features"]), "URL rewritten": row["id"].lower(), "Condition": "new",
             "Available for order (0 = No, 1 = Yes)": 1, "Image URLs (x,y,z...)": f"https://x.example/{number}.jpg",
             "Feature (Name:Value:Position:Customized)": f"Colour:{row['colour']}:1,Print:{row['pattern']}:2"}
            for number, row in enumerate(products(), start=1)]  # fmt: skip
    return write(path, PRESTASHOP, rows, delimiter=";", encoding="utf-8-sig")


def etsy(path):
    rows = []
    for number, row in enumerate(products()):
        rows.append({
            "TITLE": row["title"], "DESCRIPTION": f"{row['description']}\n\nMade to order.", "PRICE": "25.00",
            "CURRENCY_CODE": "EUR", "QUANTITY": number % 9, "MATERIALS": ["Cotton", "Silver,Stone"][number % 2],
            "TAGS": ",".join(tag.replace(" ", "_") for tag in ["gift", *row["features"]]),
            "SKU": row["id"] if number % 3 else "", "VARIATION 1 TYPE": "Custom Property",
            "VARIATION 1 NAME": "Primary color", "VARIATION 1 VALUES": row["colour"]}
            | {f"IMAGE{place}": f"https://i.example/{number}-{place}.jpg" for place in range(1, 2 + number % 3)}
            | (dict(zip(ETSY[-4:-1], ("Size", "Size", "S,M"), strict=True)) if number % 2 else {}))
    return write(path, ETSY, rows)


def wix(path):
    rows = []
    for number, row in enumerate(products()):
        known = {"handleId": f"product_{number:08x}", "visible": "true", "inventory": "InStock"}
        colour = f"#b81616:{row['colour']}" if number % 2 else f"rgb(193,180,123):{row['colour']}"
        rows.append(known | {
            "fieldType": "Product", "name": row["title"], "description": f"<p>{row['description']}</p>",
            "price": "25.0", "productImageUrl": f"50_{number}~mv2.jpg;50_{number}b~mv2.jpg", "sku": row["id"],
            "collection": f"{row['category'] or 'Rest'};Slider", "ribbon": ["", "New", "Best Seller"][number % 3],
            "productOptionName1": "Color", "productOptionType1": "COLOR", "productOptionDescription1": colour,
            "productOptionName2": "Size", "productOptionType2": "DROP_DOWN", "productOptionDescription2": "S;M",
            "additionalInfoTitle1": "Material", "discountMode": "PERCENT", "brand": "Acme",
            "additionalInfoDescription1": f"<p>{['Cotton', 'Clay'][number % 2]}</p>"})
        rows += [known | {"fieldType": "Variant", "surcharge": "2.0", "productOptionDescription1": colour,
                          "productOptionDescription2": size} for size in "SM"]
    return write(path, WIX, rows)


def squarespace(path):
    rows = []
    for number, row in enumerate(products()):
        for place, size in enumerate("SML"[:1 + number % 3]):
            first = {"Product ID [Non Editable]": f"5f{number:022x}", "Product Type [Non Editable]": "PHYSICAL",
                     "Product Page": "shop", "Product URL": row["id"].lower(), "Title": row["title"],
                     "Description": f"<p>{row['description']}</p>", "Categories": f"/shop/{row['category']}, /new",
                     "Tags": ", ".join(row["features"]), "Visible": "Yes",
                     "Hosted Image URLs": f"https://i.example/{number}.jpg https://i.example/{number}b.jpg"}
            rows.append({"Variant ID [Non Editable]": f"{number:08x}-{place}", "SKU": f"SQ{number}{size}",
                         "Option Name 1": "Size", "Option Value 1": size, "Option Name 2": "Colour",
                         "Option Value 2": row["colour"], "Price": "45.00", "Sale Price": "0.00", "On Sale": "No",
                         "Stock": "Unlimited", "Weight": "0.3"} | (first if place == 0 else {}))
    return write(path, SQUARESPACE, rows)


def odoo(path):
    rows = []
    for number, row in enumerate(products()):
        rows.append({
            "External ID": f"__export__.product_{number}", "Name": row["title"], "Internal Reference": row["id"],
            "Barcode": 4_000_000_000_000 + number, "Product Type": "Goods", "Sales Price": "25.0", "Can be Sold": True,
            "Product Category": f"All / Saleable / {row['category']}" if row["category"] else "All / Saleable",
            "Sales Description": row["description"], "Product Tags": ",".join(row["features"]),
            "Product Attributes/Attribute": "Colour", "Product Attributes/Values": row["colour"],
            "Unit of Measure": ["Units", "kg"][number % 2], "Responsible/Email": f"ada{number % 3}@shop.example"})
        rows += [{"Product Attributes/Attribute": "Size", "Product Attributes/Values": "S,M"}] * (number % 2)
    return write(path, ODOO, rows)


def shopify_json(path):
    """`products.json` of a shop, as one line."""
    found = [{"id": 9_007_199_254_740_993 + number, "title": row["title"], "handle": row["id"].lower(),
              "body_html": f"<p>{row['description']}</p>", "vendor": "Acme", "product_type": row["category"] or "",
              "tags": ["new", *row["features"]] if number % 3 else [],
              "variants": [{"id": number, "price": "34.00", "sku": row["id"], "available": True}],
              "images": [{"id": 1, "src": f"https://cdn.example/{row['id']}.jpg", "width": 600}],
              "options": [{"name": "Title", "position": 1, "values": ["Default Title"]}]}
             for number, row in enumerate(products())]
    path.write_text(json.dumps({"products": found}, separators=(",", ":")))
    return path


def square(path):
    rows = [{"Token": f"T{number:05}{size}", "Item Name": f"{row['title']} {number}", "Variation Name": size,
             "SKU": f"{row['id']}-{size}", "Description": row["description"], "Item Type": "Physical good",
             "Categories": f"{row['category'] or 'Rest'}, Sale", "Price": "25.00", "Archived": "N", "Sellable": "Y",
             "Current Quantity Downtown": number % 9, "Tax - VAT (19%)": "Y", "Option Name 1": "Size",
             "Option Value 1": size, "Option Name 2": "Colour", "Option Value 2": row["colour"]}
            for number, row in enumerate(products()) for size in "SM"[:1 + number % 2]]
    return write(path, list(rows[0]), rows)


def ecwid(path):
    rows = []
    for number, row in enumerate(products()):
        known = {"product_internal_id": 7000 + number, "product_sku": row["id"]}
        rows.append({"type": "product", **known, "product_name": row["title"], "product_price": "25",
                     "product_quantity": 3, "product_description": f"<p>{row['description']}</p>",
                     "product_brand": "Acme", "product_is_available": "true",
                     "product_category_1": f"Shop / {row['category'] or 'Rest'}",
                     "product_media_main_image_url": f"https://i.example/{number}.jpg",
                     "product_attribute_Print": row["pattern"], "product_attribute_{Made in}": "PT"})
        rows += [{"type": "product_option", **known, "product_option_name": name, "product_option_value": value}
                 for name, value in (("Size", "S"), ("Size", "M"), ("Colour", row["colour"]))]
    return write(path, list(rows[0] | rows[1]), rows)


def shopify_graphql(path):
    """A page of an answer of Shopify's GraphQL API, or as JSONL the lines of a bulk operation: of each product, then of
    all that belongs to it."""
    nodes, lines = [], []
    for number, row in enumerate(products()):
        product = {"id": f"gid://shopify/Product/{number}", "title": row["title"], "handle": row["id"].lower(),
                   "descriptionHtml": f"<p>{row['description']}</p>", "vendor": "Acme", "status": "ACTIVE",
                   "productType": row["category"] or "", "tags": ["new", *row["features"]] if number % 3 else [],
                   "category": {"id": "gid://shopify/TaxonomyCategory/qx-1", "fullName": f"Shop > {row['category']}"}}
        variants = [{"id": f"gid://shopify/ProductVariant/{number}{size}", "title": size, "price": "34.00",
                     "selectedOptions": [{"name": "Size", "value": size}, {"name": "Colour", "value": row["colour"]}]}
                    for size in "SM"] if number % 2 else [
            {"id": f"gid://shopify/ProductVariant/{number}", "title": "Default Title", "price": "9.00",
             "selectedOptions": [{"name": "Title", "value": "Default Title"}]}]
        media = [{"id": f"gid://shopify/MediaImage/{number}{place}",
                  "image": {"url": f"https://cdn.example/{number}{place}.jpg"}} for place in range(1 + number % 3)]
        fields = [{"key": "fabric", "value": ["Cotton", '["Cotton","Silk"]'][number % 2]}]
        lining = [{"key": "lining", "value": ["Satin", "Mesh"][number % 2]}]
        nodes.append({"node": product | {
            "variants": {"edges": [{"node": variant} for variant in variants]}, "media": {"nodes": media},
            "metafields": {"edges": [{"node": one} for one in fields + lining]},
            "featuredMedia": {"preview": {"image": media[0]["image"]}}}})
        lines += [product] + [child | {"__parentId": product["id"]} for child in variants + media + fields]
        lines += [child | {"__parentId": variants[0]["id"]} for child in lining]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        path.write_text(json.dumps({"data": {"shop": {"name": "Ürsel"}, "products": {
            "edges": nodes, "pageInfo": {"hasNextPage": False}}}, "extensions": {"cost": 12}}, ensure_ascii=False))
    return path


def json_ld(path):
    """A graph of a page, indented, with what is no product in it."""
    graph = [{"@type": "Organization", "name": "Shop"}]
    for number, row in enumerate(products()):
        product = {"@type": "Product", "sku": row["id"], "name": row["title"], "description": row["description"],
                   "image": [f"https://shop.example/{row['id']}.jpg"], "brand": {"@type": "Brand", "name": "Acme"},
                   "offers": {"@type": "Offer", "price": 34.0, "priceCurrency": "EUR"}}
        product |= ({"keywords": ["new", "sale"]}, {"keywords": "new, sale"}, {})[number % 3]
        graph.append({"@type": "ListItem", "position": number, "item": product} if number % 2 else product)
    path.write_text(json.dumps({"@context": "https://schema.org", "@graph": graph}, indent=2, ensure_ascii=False),
                    encoding="utf-8-sig")
    return path
