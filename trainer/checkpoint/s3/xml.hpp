#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pitcrew::trainer::s3 {

// What is between <name> and </name>, for each of them, in order; nested ones of the same name are not expected. Enough
// for the flat answers of S3 and STS, which carry no attributes on the elements that are asked for.
std::vector<std::string_view> elements(std::string_view xml, std::string_view name);

// The text of the first such element, entities replaced; empty where there is none.
std::string element_text(std::string_view xml, std::string_view name);

// "a&b" → "a&amp;b", for texts inside an element.
std::string escape_xml(std::string_view text);

}  // namespace pitcrew::trainer::s3
