# How the folders of src/ become libraries.

add_library(tilewright_options INTERFACE)
target_compile_features(tilewright_options INTERFACE cxx_std_20)
target_compile_options(tilewright_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
target_include_directories(tilewright_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/templates
                                                       $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
if(TILEWRIGHT_SANITIZE)
  target_compile_options(tilewright_options INTERFACE -fsanitize=${TILEWRIGHT_SANITIZE} -fno-omit-frame-pointer
                                                      -fno-sanitize-recover=all)
  target_link_options(tilewright_options INTERFACE -fsanitize=${TILEWRIGHT_SANITIZE})
endif()

# tilewright_module(name dependency...): the sources of src/name as the object library tilewright_name.
function(tilewright_module name)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  if(NOT sources)
    add_library(tilewright_${name} INTERFACE)
    target_link_libraries(tilewright_${name} INTERFACE tilewright_options ${ARGN})
    return()
  endif()
  add_library(tilewright_${name} OBJECT ${sources})
  target_link_libraries(tilewright_${name} PUBLIC tilewright_options ${ARGN})
  target_include_directories(tilewright_${name} PRIVATE ${XXHASH_INCLUDE_DIR})
endfunction()

# tilewright_library(target module...): an installable library out of modules.
function(tilewright_library target)
  add_library(${target})
  if(NOT target STREQUAL "tilewright_emulator_library")
    add_library(tilewright::${target} ALIAS ${target})
  endif()
  foreach(module ${ARGN})
    get_target_property(kind tilewright_${module} TYPE)
    if(kind STREQUAL "OBJECT_LIBRARY")
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:tilewright_${module}>)
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_link_options(${target} PRIVATE $<TARGET_PROPERTY:tilewright_options,INTERFACE_LINK_OPTIONS>)
endfunction()

# Embeds templates/ in a module; a changed template is embedded anew.
function(tilewright_embed_templates target)
  file(GLOB_RECURSE templates CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/templates/*.cu ${PROJECT_SOURCE_DIR}/templates/*.cuh)
  set(output ${PROJECT_BINARY_DIR}/embedded_templates.cpp)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DTEMPLATES=${PROJECT_SOURCE_DIR}/templates -DOUTPUT=${output}
            -P ${PROJECT_SOURCE_DIR}/cmake/EmbedTemplates.cmake
    DEPENDS ${templates} ${PROJECT_SOURCE_DIR}/cmake/EmbedTemplates.cmake
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()

# Embeds cache/tuned in a module.
function(tilewright_embed_tuned_tables target)
  file(GLOB tables CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cache/tuned/*.json)
  set(output ${PROJECT_BINARY_DIR}/embedded_tuned_tables.cpp)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DTABLES=${PROJECT_SOURCE_DIR}/cache/tuned -DOUTPUT=${output}
            -P ${PROJECT_SOURCE_DIR}/cmake/EmbedTunedTables.cmake
    DEPENDS ${tables} ${PROJECT_SOURCE_DIR}/cmake/EmbedTunedTables.cmake
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
